"""Sends what is on disk to W&B, from run folders alone: no model, no torch."""
