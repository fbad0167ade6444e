"""Rotary positions of Qwen-VL: a base that grows with the prompt (dynamic NTK) and queries scaled by log n.

Published behaviour, for one row without padding: a forward without a cache sets the base by its number of tokens, and
all that follow with a cache keep it. So the base is that of the *prompt*, and here it is that of the row's own prompt
whatever is batched, cached or scored with it: the processor says how long each is (`prompt_length`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor, Tensor]  # cosines and sines [B, 1, T, D], and the scale of queries [B, 1, T, 1]


def rotation(config: Any, positions: Tensor, lengths: Tensor) -> Rotation:
    """Of tokens at `positions [B, T]` in rows whose prompts have `lengths [B]` tokens, in float32."""
    width = config.kv_channels
    growth = ntk_growth(lengths, config.seq_length) if config.use_dynamic_ntk else torch.ones_like(lengths)
    base = config.rotary_emb_base * growth.to(positions.device).float() ** (width / (width - 2))
    powers = torch.arange(0, width, 2, device=positions.device) / width
    frequencies = 1 / base[:, None] ** powers
    angles = (positions[..., None] * frequencies[:, None]).repeat(1, 1, 2)[:, None]
    return angles.cos(), angles.sin(), _scale(config, positions)[:, None, :, None]


def ntk_growth(lengths: Tensor, trained: int) -> Tensor:
    """1 up to `trained` tokens, 3 up to twice as many, 7 up to four times as many, and so on."""
    doublings = ((lengths.clamp(min=1).float() / trained).log2() + 1).ceil()
    return (2**doublings - 1).clamp(min=1)


def _scale(config: Any, positions: Tensor) -> Tensor:
    """What queries are multiplied by `[B, T]`: beyond `seq_length` the logarithm to that base of the tokens so far."""
    count = positions + 1
    scale = count.float().log() / math.log(config.seq_length)
    return scale.where((count > config.seq_length) & config.use_logn_attn, 1.0)


def rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`states [B, H, T, D]`, turned in float32."""
    exact = states.float()
    left, right = exact.chunk(2, dim=-1)
    return (exact * cos + torch.cat([-right, left], dim=-1) * sin).to(states.dtype)
