from __future__ import annotations

import random
from typing import TYPE_CHECKING

from stv_exp.methods.choice import Grid, Where
from stv_exp.methods.counts import check_k
from stv_exp.methods.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.scan import Scan


@register("random")
class Random(Where):
    """`method.k` locations at random: the control."""

    reads = ("method.k",)

    def locations(self, scan: Scan) -> Tensor:
        from stv_exp.models.sites import locations_of

        everywhere = locations_of(scan.grid)
        pick = random.Random(f"{self.config.seed}/where")
        return everywhere[sorted(pick.sample(range(len(everywhere)), self.config.method.k))]

    def check_grid(self, grid: Grid) -> None:
        check_k(self.config, grid)
