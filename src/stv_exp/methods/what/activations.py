from __future__ import annotations

from typing import TYPE_CHECKING

from stv_exp.methods.choice import What
from stv_exp.methods.counts import check_m
from stv_exp.methods.registry import register

if TYPE_CHECKING:
    from torch import Tensor


@register("activations")
class Activations(What):
    """`method.m` of the scan's activations as they are, of the same queries at every location."""

    reads = ("method.m",)

    def candidates(self, activations: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        pick = torch.Generator().manual_seed(self.config.seed)
        drawn = torch.randperm(activations.shape[1], generator=pick)[: self.config.method.m]
        found = activations[:, drawn]
        return found, torch.ones(found.shape[:2], dtype=torch.long)

    def check(self) -> None:
        check_m(self.config)
