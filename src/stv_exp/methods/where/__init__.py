"""Where to insert, one choice a file."""
