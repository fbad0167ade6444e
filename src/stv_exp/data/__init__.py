"""Tasks, prompts and demonstration choice; one file per benchmark."""
