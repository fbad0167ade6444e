"""What a report prints: nothing in it is markup, whatever it holds."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from stv_exp.errors import printable
from stv_exp.report.layout import Grid, blocks, parts
from stv_exp.report.tables import Table

_WIDEST = 10_000


def print_table(table: Table) -> None:
    """The table, each of its blocks under its title, in parts where there is too little room for it."""
    safe = [[printable(cell) for cell in row] for row in (table.headers, *table.rows)]
    for block in blocks(replace(table, headers=safe[0], rows=safe[1:])):
        Console(width=_width()).print(Text(printable(block.title), style="bold"))
        for part in parts(block, _width()):
            Console(width=_WIDEST).print(_drawn(part))  # as wide as the parts are made


def print_line(text: str) -> None:
    """A sentence, wrapped between words on a terminal."""
    Console().print(Text(printable(text)), soft_wrap=not sys.stdout.isatty())


def _drawn(grid: Grid) -> RichTable:
    drawn = RichTable()
    for i, (header, width) in enumerate(zip(grid.headers, grid.widths, strict=True)):
        drawn.add_column(Text(header), width=width, overflow="fold", justify="left" if i < grid.names else "right")
    for row in grid.rows:
        drawn.add_row(*map(Text, row))
    return drawn


def _width() -> int:
    """Columns of the terminal, or those that the environment gives; a file or a log is as wide as its tables."""
    return Console().width if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDEST
