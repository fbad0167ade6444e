from __future__ import annotations

from stv_exp.methods.choice import Grid, How, What, Where
from stv_exp.methods.registry import register
from stv_exp.methods.trained import Trained


@register("none")
class NoEdit(Trained):
    """None: nothing is trained, the method is where, what and how."""

    trains = False
    reads = ()

    def needs(self, where: Where, what: What, how: How) -> str | None:
        return None

    def check_grid(self, grid: Grid) -> None:
        """Nothing to check."""
