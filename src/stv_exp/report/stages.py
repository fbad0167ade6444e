"""The stages of a run, by which its costs are told."""

# Before the evaluation, in their order; no run has them all.
STAGES = ("scan", "effects", "bank", "policy", "train")
