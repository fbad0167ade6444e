"""What lies in an outputs folder: files written whole, locks, stages, runs and studies."""
