"""HiFICL (Li et al., CVPR 2026, arXiv 2603.12760): learned pairs of key and value that every head attends to as well.

`train.virtual` pairs a head, each table the product of two of `train.rank`; keys have no rotary position, values start
at 0. Trained by cross-entropy alone. With `train.rank=0` the tables are free: prefix tuning, a prefix of each query
head's own. As published, the pairs take their share of attention from the start, when their values are 0: only without
pairs nothing would change. Differences: the code lets them compete with all keys, later and padded ones too, here with
those that the token sees (`train.unseen`: as published); cross-entropy is of the answer's tokens, as for Qwen-VL and
LLaVA there, for Idefics of the question's too; where a model caps its scores, those of the pairs have no cap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from stv_exp.methods.registry import register
from stv_exp.methods.trained import Attended, Frozen, Shape, Trained

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.methods.trained import Parameters

_STD = {"key": 0.01, "value": 0.0, "key_a": 1.0, "key_b": 0.01, "value_a": 1.0, "value_b": 0.0}


@register("hificl")
class Hificl(Trained):
    """Virtual keys and values a head, of low rank or free, by cross-entropy (HiFICL, CVPR 2026; prefix tuning)."""

    reads = (*Trained.reads, "train.virtual", "train.rank", "train.unseen")
    attends = True
    knows: ClassVar[Mapping[str, Any]] = {**Trained.knows, "virtual": int, "rank": int, "unseen": bool}

    def options(self, shape: Shape) -> dict[str, Any]:
        train = self.config.train
        return {**super().options(shape), "virtual": train.virtual, "rank": train.rank, "unseen": train.unseen}

    def start(self, frozen: Frozen) -> dict[str, Tensor]:
        import torch

        shapes = self.shapes(frozen.shape, self.options(frozen.shape))
        return {name: _STD[name] * torch.randn(size, generator=frozen.generator) for name, size in shapes.items()}

    @classmethod
    def shapes(cls, shape: Shape, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        heads, n, rank = (len(shape.layers), shape.n_heads), options["virtual"], options["rank"]
        if not rank:
            return dict.fromkeys(("key", "value"), (*heads, n, shape.head_dim))
        sides = {"a": (*heads, n, rank), "b": (*heads, rank, shape.head_dim)}
        return {f"{name}_{side}": size for name in ("key", "value") for side, size in sides.items()}

    @classmethod
    def attended(cls, seen: Attended, row: int, p: Parameters, options: Mapping[str, Any]) -> Tensor:
        import torch

        keys, values = (_table(p, name, row) for name in ("key", "value"))  # [H, N, D]
        scores = seen.scaling * seen.queries @ keys.mT  # [B, H, T, N]
        own = seen.denominator(options["unseen"])[..., None]
        log_z = torch.logaddexp(scores.logsumexp(-1, keepdim=True), own)
        return (own - log_z).exp() * seen.out + (scores - log_z).exp() @ values


def _table(p: Parameters, name: str, row: int) -> Tensor:
    return p[name][row] if name in p else p[f"{name}_a"][row] @ p[f"{name}_b"][row]
