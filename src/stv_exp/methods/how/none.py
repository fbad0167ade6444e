from __future__ import annotations

from typing import TYPE_CHECKING

from stv_exp.methods.choice import How
from stv_exp.methods.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.bank import Bank


@register("none")
class First(How):
    """No search: each location's first candidate."""

    def choose(self, bank: Bank) -> Tensor:
        return bank.sizes.new_zeros(len(bank.locations))
