"""Edits whose parameters are trained through the frozen model, one a file."""
