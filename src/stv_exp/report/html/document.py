"""The page: what it shows, handed to its template. No markup is written here, and all text is escaped there."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from stv_exp.errors import printable
from stv_exp.report.html.cards import cards
from stv_exp.report.html.drawing import Drawing, drawing
from stv_exp.report.html.facts import facts
from stv_exp.report.html.grid import Grid
from stv_exp.report.html.settings import runs_grid, shared
from stv_exp.report.tables import Table, in_order

_COSTS = ("stages", "cost", "cost.png", "stages.png")  # what has a chapter of its own
_CAPTIONS = {
    "table": "By method",
    "tasks": "By task",
    "datasets": "By dataset",
    "stages": "Each method, by stage, in the mean",
    "cost": "Each run, by stage",
}


@dataclass(frozen=True)
class Document:
    """What is shown of a comparison; by name, `titles` are those of tables without one here, `pictures` are figures.

    `runs` and `predictions` are the report's frames: a row a run, a row an item of a run.
    """

    title: str
    runs: pd.DataFrame
    predictions: pd.DataFrame
    tables: Sequence[Table]
    titles: Mapping[str, str]
    pictures: Mapping[str, Figure]
    notes: Sequence[str]

    def html(self) -> str:
        """The whole page, the same for the same runs."""
        environment = _environment()
        labels = [label for label, _ in reversed(in_order(self.runs))]
        script = environment.get_template("report.js").render()
        return environment.get_template("report.html").render(
            title=self.title,
            facts=facts(self.runs),
            tables=self._grids(costs=False),
            costs=self._grids(costs=True),
            drawings=self._drawings(costs=False),
            cost_drawings=self._drawings(costs=True),
            notes=self.notes,
            cards=cards(self.runs, self.predictions, labels),
            labels=labels,
            tasks=sorted(self.runs["task"].unique()),
            runs=runs_grid(self.runs),
            shared=shared(self.runs),
            script=Markup(script),
            digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )

    def _grids(self, costs: bool) -> list[Grid]:
        chosen = [table for table in self.tables if (table.name in _COSTS) == costs]
        return [Grid(self._caption(table.name), table.headers, table.rows) for table in chosen]

    def _caption(self, name: str) -> str:
        return self.titles.get(name) or _CAPTIONS.get(name, name)

    def _drawings(self, costs: bool) -> list[Drawing]:
        return [drawing(name, figure) for name, figure in self.pictures.items() if (name in _COSTS) == costs]


@cache
def _environment() -> Environment:
    """Templates that escape whatever they are given, and show in it what cannot be printed."""
    return Environment(
        loader=PackageLoader("stv_exp.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
    )
