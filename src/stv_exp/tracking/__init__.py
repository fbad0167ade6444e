"""Trackers: views of run folders, never their source. `wandb` is imported here and nowhere else.

A tracker follows the curve of a search while it runs; what it shows of the result it reads from the run's folder, as
`python -m stv_exp.publish` does later for runs that no tracker has seen.
"""
