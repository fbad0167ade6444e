"""A table of the page: which of its columns are numbers, so that their digits stand below each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stv_exp.report.cells import is_number


@dataclass(frozen=True)
class Grid:
    """Cells below their headers; the first cell names its row."""

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def kinds(self) -> list[str]:
        """Of each column, `number` or `text`."""
        return ["text", *(self._kind(i) for i in range(1, len(self.headers)))]

    def _kind(self, i: int) -> str:
        return "number" if all(is_number(row[i]) for row in self.rows) else "text"
