"""The stages of a method: scan, bank, policy, evaluation. Lightning modules over plain functions."""
