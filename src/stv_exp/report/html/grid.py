"""A table of the page: which of its columns are numbers, so that their digits stand below each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_NUMBER = re.compile(r"[-+<[\],.±%\d\s]*")  # `0.950 ± 0.010`, `[0.91, 0.98]`, `< 0.001`, `-` and nothing


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
        return "number" if all(_NUMBER.fullmatch(row[i]) for row in self.rows) else "text"
