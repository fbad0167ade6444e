"""What the candidates at each location are, one choice a file."""
