"""Benchmarks of what the framework promises to be fast at: `python -m stv_exp.bench`."""
