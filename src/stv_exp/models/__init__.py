"""Frozen models: loading, head activations, insertion and shared-prefix scoring."""
