"""I2CL (Li et al., arXiv 2405.14660): what attention and MLP give out at every token becomes b x it + a x a vector.

The vector is the mean, over single demonstrations, of what they give out at the line's end behind it; a and b, two
scalars each at both places of a layer, are calibrated by cross-entropy on the same demonstrations. As published: start
(0.1, 1), and Gaussian noise while it trains. Differences: the demonstrations are the whole support (`dataset.support`),
each of them a query and its answer; batches are epochs of it, not draws; the cosine begins where the warm-up ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stv_exp.methods.registry import register
from stv_exp.methods.trained import Frozen, Shape, Trained

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.methods.trained import Parameters

_SITES = ("attention", "mlp")
_START = (0.1, 1.0)  # a, b


@register("i2cl")
class I2CL(Trained):
    """Four calibrated scalars a layer on mean outputs of single demonstrations (I2CL, arXiv 2405.14660)."""

    version = 2
    reads = (*Trained.reads, "train.noise")
    constants = ("vectors",)
    noisy = True

    def start(self, frozen: Frozen) -> dict[str, Tensor]:
        import torch

        vectors = torch.stack([frozen.mean(site, "answers") for site in _SITES], 1)
        return {"vectors": vectors, "scales": torch.tensor(_START).repeat(len(vectors), len(_SITES), 1)}

    @classmethod
    def shapes(cls, shape: Shape, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        n = len(shape.layers)
        return {"vectors": (n, len(_SITES), shape.hidden), "scales": (n, len(_SITES), len(_START))}

    @classmethod
    def sites(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        return _SITES

    @classmethod
    def changed(cls, found: Tensor, site: str, row: int, p: Parameters, options: Mapping[str, Any]) -> Tensor:
        place = _SITES.index(site)
        a, b = p["scales"][row, place]
        return b * found + a * p["vectors"][row, place]
