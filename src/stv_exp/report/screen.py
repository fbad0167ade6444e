"""What a report prints: nothing in it is markup, whatever it holds."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stv_exp.report.tables import Table
from stv_exp.report.text import printable

_WIDEST = 10_000
_LABEL = 20  # columns that a label keeps on a narrow terminal


def print_table(table: Table, title: str) -> None:
    grid = Grid(title=Text(printable(title), style="table.title"))
    longest = max((len(row[0]) for row in table.rows), default=0)
    for i, header in enumerate(table.headers):
        first = i == 0
        room = {"overflow": "fold", "min_width": min(longest, _LABEL)} if first else {"justify": "right"}
        grid.add_column(Text(printable(header)), **room)
    for row in table.rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    _console(grid).print(grid)


def print_line(text: str) -> None:
    _console().print(Text(printable(text)), soft_wrap=True)


def _console(grid: Grid | None = None) -> Console:
    """The terminal at its own width; a file or a log wide enough for the table."""
    if sys.stdout.isatty():
        return Console()
    wide = Console(width=_WIDEST)
    return Console(width=max(140, wide.measure(grid).maximum if grid else 0))
