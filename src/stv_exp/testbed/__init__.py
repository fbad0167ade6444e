"""The in-context vision-language model that ships with the package, and the recipe that trained it."""
