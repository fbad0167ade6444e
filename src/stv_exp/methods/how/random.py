from __future__ import annotations

from typing import TYPE_CHECKING

from stv_exp.methods.choice import How
from stv_exp.methods.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.bank import Bank


@register("random")
class Random(How):
    """A random candidate a location (or none, with `bank.identity`): the control."""

    reads = ("bank.identity",)

    @property
    def may_decline(self) -> bool:
        return self.config.bank.identity

    def choose(self, bank: Bank) -> Tensor:
        import torch

        k, m = bank.centroids.shape[:2]
        alike = torch.zeros(k, m + self.may_decline).softmax(-1)
        return alike.multinomial(1, replacement=True, generator=torch.Generator().manual_seed(self.config.seed))[:, 0]
