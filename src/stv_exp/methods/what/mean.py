from __future__ import annotations

from typing import TYPE_CHECKING

from stv_exp.methods.choice import What
from stv_exp.methods.registry import register

if TYPE_CHECKING:
    from torch import Tensor


@register("mean")
class Mean(What):
    """The mean activation: one candidate a location."""

    many = False

    def candidates(self, activations: Tensor) -> tuple[Tensor, Tensor]:
        n_locations, n_activations = activations.shape[:2]
        sizes = activations.new_full((n_locations, 1), n_activations).long()
        return activations.mean(1, keepdim=True), sizes
