"""What a report prints: nothing in it is markup, whatever it holds."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from stv_exp.report.layout import Grid, grids
from stv_exp.report.tables import Table
from stv_exp.report.text import printable

_WIDEST = 10_000


def print_table(table: Table) -> None:
    """The table, in parts where the terminal is too narrow for it."""
    safe = [[printable(cell) for cell in row] for row in (table.headers, *table.rows)]
    for grid in grids(replace(table, title=printable(table.title), headers=safe[0], rows=safe[1:]), _width()):
        Console(width=_WIDEST).print(_drawn(grid))


def print_line(text: str) -> None:
    """A sentence, wrapped between words on a terminal."""
    width = _width()
    Console(width=width).print(Text(printable(text)), soft_wrap=width == _WIDEST)


def _drawn(grid: Grid) -> RichTable:
    drawn = RichTable(title=Text(grid.title, style="table.title"))
    for i, (header, width) in enumerate(zip(grid.headers, grid.widths, strict=True)):
        drawn.add_column(Text(header), width=width, overflow="fold", justify="left" if i < grid.names else "right")
    for row in grid.rows:
        drawn.add_row(*map(Text, row))
    return drawn


def _width() -> int:
    """The terminal's, or what the environment says; a file or a log is as wide as its tables."""
    return Console().width if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDEST
