from __future__ import annotations

from typing import TYPE_CHECKING

from stv_exp.methods.choice import Where
from stv_exp.methods.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.scan import Scan


@register("all")
class Everywhere(Where):
    """Every location of the site."""

    def locations(self, scan: Scan) -> Tensor:
        from stv_exp.models.sites import locations_of

        return locations_of(scan.grid)
