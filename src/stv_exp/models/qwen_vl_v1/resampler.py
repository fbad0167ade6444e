"""The resampler: learned queries read a picture's patches once, each at its place in a grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD = 128  # the width of a head, whatever the decoder's
EPSILON = 1e-6  # of every norm of the vision tower


class CrossAttention(nn.Module):
    """Attention of queries `[B, Q, C]` over patches `[B, P, C]`; its three projections are one matrix."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        parts = (functional.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return self.out_proj(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    """`queries` features a picture `[B, Q, C]`, from its patches `[B, P, width]`."""

    def __init__(self, queries: int, width: int, patch_width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.empty(queries, width), requires_grad=False)
        self.query = nn.Parameter(torch.empty(queries, width))
        self.kv_proj = nn.Linear(patch_width, width, bias=False) if patch_width != width else nn.Identity()
        self.attn = CrossAttention(width)
        self.ln_q = nn.LayerNorm(width, eps=EPSILON)
        self.ln_kv = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, patches: Tensor) -> Tensor:
        seen = self.ln_kv(self.kv_proj(patches))
        asked = (self.ln_q(self.query) + self.pos_embed).expand(len(patches), -1, -1)
        return self.attn(asked, seen + stretched(self.pos_embed, patches.shape[1]), seen)


def sines(queries: int, width: int) -> Tensor:
    """Places in a square grid `[queries, width]`: sines and cosines of the column, then those of the row."""
    side = math.isqrt(queries)
    frequencies = 10000.0 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * frequencies
    one = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.cat([one.repeat(side, 1), one.repeat_interleave(side, dim=0)], dim=1)


def stretched(places: Tensor, patches: int) -> Tensor:
    """Embeddings of a square grid `[G * G, C]` for one of another size `[patches, C]`, by bicubic interpolation."""
    old, new = math.isqrt(len(places)), math.isqrt(patches)
    if old == new:
        return places
    grid = places.float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).flatten(0, 2).to(places.dtype)
