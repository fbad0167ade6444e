"""Tables and pictures from run folders on disk."""
