"""A table of the page: which of its columns are numbers, so that their digits stand below each other."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stv_exp.report.tables import Table

_NUMBER = re.compile(r"[-+<[\],.±%\d\s]*")  # `0.950 ± 0.010`, `[0.91, 0.98]`, `< 0.001`, `-` and nothing


@dataclass(frozen=True)
class Grid:
    """A table under its caption; `kinds` has `number` or `text` a column."""

    caption: str
    table: Table

    @property
    def kinds(self) -> list[str]:
        return ["text", *("number" if all(map(_NUMBER.fullmatch, cells)) else "text" for cells in self._columns()[1:])]

    def _columns(self) -> list[list[str]]:
        return [[row[i] for row in self.table.rows] for i in range(len(self.table.headers))]
