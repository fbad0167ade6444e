"""The vision tower of Qwen-VL: OpenCLIP's ViT-bigG/14 without a class token, a resampler and a projection."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stv_exp.models.qwen_vl_v1.resampler import EPSILON, Resampler, stretched

PLACES = 256  # learned places of patches, a grid of 16 x 16, stretched to the picture's


class VisualAttention(nn.Module):
    """Self-attention `[B, P, C]`. `in_proj` gives query, key and value of the first head, then of the next."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.in_proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2).chunk(3, dim=-1)
        return self.out_proj(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class VisualAttentionBlock(nn.Module):
    """One layer; its MLP has the exact GELU."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        inner = int(width * mlp_ratio)
        self.ln_1 = nn.LayerNorm(width, eps=EPSILON)
        self.ln_2 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = VisualAttention(width, heads)
        parts = {"c_fc": nn.Linear(width, inner), "gelu": nn.GELU(), "c_proj": nn.Linear(inner, width)}
        self.mlp = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class TransformerBlock(nn.Module):
    """All layers, under the published name."""

    def __init__(self, width: int, layers: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([VisualAttentionBlock(width, heads, mlp_ratio) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x)
        return x


class VisionTransformer(nn.Module):
    """Pictures `[N, 3, S, S]` to features `[N, queries, output_dim]`; `visual` is that section of the config."""

    def __init__(self, visual: dict[str, Any], queries: int) -> None:
        super().__init__()
        width, out, patch = visual["width"], visual["output_dim"], visual["patch_size"]
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.positional_embedding = nn.Parameter(torch.empty(PLACES, width))
        self.ln_pre = nn.LayerNorm(width, eps=EPSILON)
        self.transformer = TransformerBlock(width, visual["layers"], visual["heads"], visual["mlp_ratio"])
        self.attn_pool = Resampler(queries, out, width)
        self.ln_post = nn.LayerNorm(out, eps=EPSILON)
        self.proj = nn.Parameter(torch.empty(out, out))

    def patches(self, pixels: Tensor) -> Tensor:
        """What the last layer gives out `[N, P, width]`, which the resampler reads."""
        x = self.conv1(pixels.to(self.conv1.weight.dtype)).flatten(2).transpose(1, 2)
        return self.transformer(self.ln_pre(x + stretched(self.positional_embedding, x.shape[1])))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.ln_post(self.attn_pool(self.patches(pixels))) @ self.proj
