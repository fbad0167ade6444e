"""What MimIC and HiFICL change, by hooks around a layer's own projections: its heads' outputs, given queries and keys.

`masked`: the published codes sum the exponentiated scores of all keys, later ones too (and, in a batch, padding); here
those that the token sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Change = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # of layer, heads [H, T, D], queries [H, T, D], log Z2 [H, T]


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


@contextmanager
def changed(attentions: Sequence[Any], change: Change, masked: bool = True) -> Iterator[None]:
    """Within the block each layer's heads give out `change(...)`; one row at a time."""
    handles = []
    for layer, module in enumerate(attentions):
        seen: dict[str, Any] = {}

        def look(_: nn.Module, args: Any, kwargs: Any, seen: dict[str, Any] = seen) -> None:
            seen["rotary"] = kwargs["position_embeddings"]

        def write(
            _: nn.Module, args: tuple[Tensor], layer: int = layer, module: Any = module, seen: dict[str, Any] = seen
        ) -> tuple[Tensor]:
            cos, sin = (t[0] for t in seen["rotary"])
            d = module.head_dim
            q, k = (seen[name].unflatten(-1, (-1, d)).transpose(0, 1) for name in ("q", "k"))  # [heads, T, D]
            q, k = _rotated(q, cos, sin), _rotated(k, cos, sin)
            k = k.repeat_interleave(len(q) // len(k), 0)
            scores = q @ k.transpose(-2, -1) / d**0.5
            if masked:
                scores = scores.masked_fill(torch.ones_like(scores[0]).triu(1).bool(), -torch.inf)
            heads = args[0][0].unflatten(-1, (-1, d)).transpose(0, 1)
            return (change(layer, heads, q, scores.logsumexp(-1)).transpose(0, 1).flatten(1)[None],)

        handles.append(module.register_forward_pre_hook(look, with_kwargs=True))
        for name in ("q", "k"):
            keep = lambda _, args, out, name=name, seen=seen: seen.__setitem__(name, out[0])  # noqa: E731
            handles.append(getattr(module, f"{name}_proj").register_forward_hook(keep))
        handles.append(module.o_proj.register_forward_pre_hook(write))
    yield
    for handle in handles:
        handle.remove()
