"""Qwen-VL and Qwen-VL-Chat (v1, 2023) natively: as published in names, shapes and numbers, none of their code.

`register` makes transformers' Auto classes load a published folder without `trust_remote_code`.
"""
