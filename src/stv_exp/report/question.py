"""What a report is asked: which runs, how they are scored and chosen, and along which axes they are shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stv_exp.report.axes import Axes
from stv_exp.report.text import file_name


@dataclass(frozen=True)
class Question:
    """Options of `python -m stv_exp.report`.

    `against` is the method that the others are compared with, item by item. `metric` scores the predictions anew.
    `select` names settings, each chosen on validation accuracy. `where` are conditions on the runs, each
    `key=value[,value]`. `axes` are those of a table that takes the place of the usual ones; `heads` asks which heads
    were ranked and taken instead.
    """

    against: str | None = None
    metric: str | None = None
    select: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    axes: Axes = field(default_factory=Axes)
    heads: bool = False

    def folder(self, base: Path) -> Path:
        """Where tables go: those of some runs or of another metric below the runs' own, which they leave alone."""
        parts = [f"{name}-{'-'.join(keys)}" for name, keys in (("where", self.where), ("select", self.select)) if keys]
        return base.joinpath(*map(file_name, parts), *([self.metric] if self.metric else []))

    def title(self, runs: str) -> str:
        return ", ".join([runs, *self.where]) + (f", rescored by {self.metric}" if self.metric else "")
