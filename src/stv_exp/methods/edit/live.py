"""LIVE (Peng et al., NeurIPS 2024): a learned vector and its scale a layer, added at every token, lengths kept.

Trained to give the answer's distribution behind many demonstrations: KL to that teacher and 0.5 x cross-entropy. As
published: vectors start from N(0, 0.01^2), scales at 0.1, with a learning rate each; at the MLP's output, as the code
does for Idefics2 (for Idefics and OpenFlamingo at the layer's, `method.site=residual`). Differences: the KL is of what
comes before each of the answer's tokens, where the code's is of what comes behind them, so that it never sees the first
one foretold; cross-entropy of the answer's tokens alone, the question's left out; the teacher's demonstrations are
drawn once an example and none twice, not once an epoch with repetition; no temperature and no epsilon in the KL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from stv_exp.errors import StvError
from stv_exp.methods.registry import register
from stv_exp.methods.trained import TAUGHT, Frozen, Shape, Trained, norm_preserving

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.methods.trained import Parameters

_STD, _SCALE = 0.01, 0.1


@register("live")
class Live(Trained):
    """A vector and a scale a layer, taught by the many-shot prompt (LIVE, NeurIPS 2024)."""

    reads = (*Trained.reads, *TAUGHT, "method.site", "train.scale_lr")
    losses: ClassVar[Mapping[str, float]] = {"kl": 1.0, "ce": 0.5}
    rates: ClassVar[Mapping[str, str]] = {"scales": "scale_lr"}
    knows: ClassVar[Mapping[str, Any]] = {**Trained.knows, "site": str}

    def options(self, shape: Shape) -> dict[str, Any]:
        return {**super().options(shape), "site": self.config.method.site}

    def check(self) -> None:
        if self.config.method.site == "head":
            raise StvError("method.edit=live adds one vector a layer; set method.site to mlp, attention or residual.")

    def start(self, frozen: Frozen) -> dict[str, Tensor]:
        import torch

        n, hidden = len(frozen.shape.layers), frozen.shape.hidden
        vectors = _STD * torch.randn(n, hidden, generator=frozen.generator)
        return {"vectors": vectors, "scales": torch.full((n,), _SCALE)}

    @classmethod
    def shapes(cls, shape: Shape, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return {"vectors": (len(shape.layers), shape.hidden), "scales": (len(shape.layers),)}

    @classmethod
    def sites(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        return (options["site"],)

    @classmethod
    def changed(cls, found: Tensor, site: str, row: int, p: Parameters, options: Mapping[str, Any]) -> Tensor:
        return norm_preserving(found + p["scales"][row] * p["vectors"][row], found)
