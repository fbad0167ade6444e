"""How one candidate a location is chosen, one choice a file."""
