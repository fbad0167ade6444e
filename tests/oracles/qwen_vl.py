"""Qwen-VL (v1) written out from its published description: one row, whole forwards, no cache, in float64.

Only torch's elementary operations, one head at a time; weights are taken by their published names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class QwenVL:
    """Weights by name and the published `config.json`, as a mapping."""

    weights: Mapping[str, Tensor]
    config: Mapping[str, Any]

    def w(self, name: str) -> Tensor:
        return self.weights[name].double()

    def linear(self, x: Tensor, name: str) -> Tensor:
        y = x @ self.w(f"{name}.weight").T
        return y + self.w(f"{name}.bias") if f"{name}.bias" in self.weights else y

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * self.w(f"{name}.weight") + self.w(f"{name}.bias")

    def rms_norm(self, x: Tensor, name: str) -> Tensor:
        size = (x.pow(2).mean(-1, keepdim=True) + self.config["layer_norm_epsilon"]).sqrt()
        return x / size * self.w(f"{name}.weight")

    # Pictures.

    def patches(self, picture: Tensor) -> Tensor:
        """`[P, width]` of one picture `[3, S, S]`: patches in reading order through all layers."""
        v, at = self.config["visual"], "transformer.visual"
        size, side = v["patch_size"], v["image_size"] // v["patch_size"]
        kernel = self.w(f"{at}.conv1.weight").flatten(1)
        cut = [
            picture.double()[:, r * size : (r + 1) * size, c * size : (c + 1) * size].flatten()
            for r in range(side)
            for c in range(side)
        ]
        x = torch.stack(cut) @ kernel.T + self.stretched(f"{at}.positional_embedding", side)
        x = self.layer_norm(x, f"{at}.ln_pre")
        for i in range(v["layers"]):
            x = self.vision_layer(x, f"{at}.transformer.resblocks.{i}")
        return x

    def vision_layer(self, x: Tensor, at: str) -> Tensor:
        heads = self.config["visual"]["heads"]
        width = x.shape[1] // heads
        mixed = self.linear(self.layer_norm(x, f"{at}.ln_1"), f"{at}.attn.in_proj")
        found = []
        for h in range(heads):  # each head's query, key and value lie side by side
            q, k, v = mixed[:, 3 * h * width : 3 * (h + 1) * width].split(width, 1)
            found.append((q @ k.T / math.sqrt(width)).softmax(-1) @ v)
        x = x + self.linear(torch.cat(found, 1), f"{at}.attn.out_proj")
        inner = self.linear(self.layer_norm(x, f"{at}.ln_2"), f"{at}.mlp.c_fc")
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        return x + self.linear(inner, f"{at}.mlp.c_proj")

    def resampled(self, patches: Tensor) -> Tensor:
        """`[Q, output]` of one picture: queries with their places read patches with theirs, values have none."""
        at = "transformer.visual.attn_pool"
        seen = self.layer_norm(self.linear(patches, f"{at}.kv_proj"), f"{at}.ln_kv")
        places = self.w(f"{at}.pos_embed")
        asked = self.layer_norm(self.w(f"{at}.query"), f"{at}.ln_q") + places
        keyed = seen + self.stretched(f"{at}.pos_embed", math.isqrt(len(patches)))
        weights, biases = self.w(f"{at}.attn.in_proj_weight").chunk(3), self.w(f"{at}.attn.in_proj_bias").chunk(3)
        q, k, v = (x @ w.T + b for x, w, b in zip((asked, keyed, seen), weights, biases, strict=True))
        parts = zip(q.split(128, 1), k.split(128, 1), v.split(128, 1), strict=True)
        found = [(a @ b.T / math.sqrt(128)).softmax(-1) @ c for a, b, c in parts]
        return self.linear(torch.cat(found, 1), f"{at}.attn.out_proj")

    def features(self, picture: Tensor) -> Tensor:
        x = self.layer_norm(self.resampled(self.patches(picture)), "transformer.visual.ln_post")
        return x @ self.w("transformer.visual.proj")

    def stretched(self, name: str, side: int) -> Tensor:
        """A square grid of embeddings at `side` x `side` places, bicubic (a = -0.75), edges repeated."""
        grid = self.w(name)
        old = math.isqrt(len(grid))
        if old == side:
            return grid
        rows = _cubic(old, side)
        return torch.einsum("xr,yc,rck->xyk", rows, rows, grid.reshape(old, old, -1)).flatten(0, 1)

    # Text.

    def logits(self, ids: Tensor, pictures: Tensor, prompt: int | None = None) -> Tensor:
        """`[T, V]` of one row; `prompt` is the length that the rotary base goes by (None: the whole row's)."""
        x = self.w("transformer.wte.weight")[ids]
        start = self.config["visual"]["image_start_id"]
        for picture, first in zip(pictures, (ids == start).nonzero().flatten().tolist(), strict=True):
            last = first + (ids[first:] == start + 1).nonzero().flatten()[0].item()
            x[first + 1 : last] = self.features(picture)
        for i in range(self.config["num_hidden_layers"]):
            x = self.layer(x, f"transformer.h.{i}", prompt or len(ids))
        return self.rms_norm(x, "transformer.ln_f") @ self.w("lm_head.weight").T

    def layer(self, x: Tensor, at: str, prompt: int) -> Tensor:
        q, k, v = self.linear(self.rms_norm(x, f"{at}.ln_1"), f"{at}.attn.c_attn").chunk(3, -1)
        width = self.config["kv_channels"]
        parts = zip(q.split(width, 1), k.split(width, 1), v.split(width, 1), strict=True)
        found = [self.head(a, b, c, prompt) for a, b, c in parts]
        x = x + self.linear(torch.cat(found, 1), f"{at}.attn.c_proj")
        y = self.rms_norm(x, f"{at}.ln_2")
        gate = self.linear(y, f"{at}.mlp.w2")
        return x + self.linear(self.linear(y, f"{at}.mlp.w1") * gate / (1 + torch.exp(-gate)), f"{at}.mlp.c_proj")

    def head(self, q: Tensor, k: Tensor, v: Tensor, prompt: int) -> Tensor:
        trained, logn = self.config["seq_length"], self.config["use_logn_attn"]
        scale = [math.log(i, trained) if logn and i > trained else 1.0 for i in range(1, len(q) + 1)]
        q = self.turned(q, prompt) * torch.tensor(scale, dtype=torch.float64)[:, None]
        scores = q @ self.turned(k, prompt).T / math.sqrt(q.shape[1])
        later = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)
        return scores.masked_fill(later, -math.inf).softmax(-1) @ v

    def turned(self, x: Tensor, prompt: int) -> Tensor:
        """Pairs (j, j + D / 2) of position p turned by p / base^(2j / D)."""
        width = x.shape[1]
        alpha = 1
        if self.config["use_dynamic_ntk"]:
            alpha = max(2 ** math.ceil(math.log(prompt / self.config["seq_length"], 2) + 1) - 1, 1)
        base = self.config["rotary_emb_base"] * alpha ** (width / (width - 2))
        out = torch.empty_like(x)
        for j in range(width // 2):
            angle = torch.arange(len(x)).double() / base ** (2 * j / width)
            a, b = x[:, j], x[:, j + width // 2]
            out[:, j] = a * angle.cos() - b * angle.sin()
            out[:, j + width // 2] = b * angle.cos() + a * angle.sin()
        return out


def _cubic(old: int, new: int) -> Tensor:
    """Weights `[new, old]` of one axis: centres of new cells among those of old ones."""
    weights = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        at = (i + 0.5) * old / new - 0.5
        for j in range(math.floor(at) - 1, math.floor(at) + 3):
            weights[i, min(max(j, 0), old - 1)] += _kernel(abs(at - j))
    return weights


def _kernel(d: float, a: float = -0.75) -> float:
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def sines(side: int, width: int) -> Tensor:
    """Places of a grid, published: half of the width for the column, half for the row; sines, then cosines."""
    rows = []
    for r in range(side):
        for c in range(side):
            halves = []
            for place in (c, r):
                angles = [place / 10000 ** (i / (width / 4)) for i in range(width // 4)]
                halves += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            rows.append(halves)
    return torch.tensor(rows, dtype=torch.float64)


def encoded(text: str, ranks: Mapping[bytes, int], pieces: list[str]) -> list[int]:
    """Byte pairs: in each piece the neighbours whose union ranks lowest are joined, leftmost first."""
    ids = []
    for piece in pieces:
        parts = [bytes([byte]) for byte in piece.encode()]
        while len(parts) > 1:
            ranked = [(ranks.get(a + b, math.inf), i) for i, (a, b) in enumerate(pairwise(parts))]
            rank, i = min(ranked)
            if rank == math.inf:
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [ranks[part] for part in parts]
    assert "".join(pieces) == text
    return ids
