"""A table in as many columns as a terminal has: blocks, and parts of blocks, in which no number is cut."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len

from stv_exp.report.tables import Table

_FRAME, _CELL = 1, 3  # what a table and each of its columns take beside the text
_NAME, _NAMES, _HEADER = 20, 36, 13  # what is left to a long name, to all of them, and to a long word of a header


@dataclass(frozen=True)
class Grid:
    """What is printed in one piece; the first `names` columns are names. `widths` are those of the text."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int
    widths: Sequence[int] = ()

    def only(self, columns: Sequence[int]) -> Grid:
        """These columns."""
        rows = [[row[i] for i in columns] for row in self.rows]
        return Grid(self.title, [self.headers[i] for i in columns], rows, sum(i < self.names for i in columns))


def blocks(table: Table) -> Iterator[Grid]:
    """The parts of a table that its first columns tell apart, each with these in its title."""
    found: dict[tuple[str, ...], list[Sequence[str]]] = {}
    for row in table.rows:
        found.setdefault(tuple(row[: table.by]), []).append(row[table.by :])
    for place, rows in found.items():
        block = ", ".join(f"{header} {text}" for header, text in zip(table.headers, place, strict=False))
        title = ": ".join(filter(None, (table.title, block)))
        yield _told(Grid(title, table.headers[table.by :], rows, table.names), table.told)


def parts(block: Grid, width: int) -> Iterator[Grid]:
    """The block, split where `width` is too narrow for all of its numbers, every part with the names."""
    for columns in _columns(block, width):
        part = block.only(columns)
        yield replace(part, widths=_widths(part, width))


def _told(grid: Grid, told: Collection[str]) -> Grid:
    """Without columns of numbers in which there is none, and those that the title tells then."""
    same = {i: grid.rows[0][i] for i in range(grid.names, len(grid.headers)) if len({row[i] for row in grid.rows}) == 1}
    words = {i: f"{grid.headers[i]}: {text}" for i, text in same.items() if grid.headers[i] in told}
    kept = [i for i in range(len(grid.headers)) if i not in words and same.get(i) != "-"]
    return replace(grid.only(kept), title=grid.title + (f" ({', '.join(words.values())})" if words else ""))


def _columns(grid: Grid, width: int) -> list[list[int]]:
    """The columns of each part: the names and as many numbers as there is room for."""
    least, names = _least(grid), list(range(grid.names))
    parts = [[*names]]
    for i in range(grid.names, len(grid.headers)):
        if len(parts[-1]) > grid.names and _room(width, [least[j] for j in (*parts[-1], i)]) < 0:
            parts.append([*names])
        parts[-1].append(i)
    return parts


def _widths(grid: Grid, width: int) -> list[int]:
    """What each column needs at least, and as much more as there is room for, names first."""
    widths = _least(grid)
    for i, wanted in enumerate(_wanted(grid)):
        widths[i] += max(0, min(wanted - widths[i], _room(width, widths)))
    return widths


def _room(width: int, widths: Sequence[int]) -> int:
    return width - _FRAME - sum(own + _CELL for own in widths)


def _wanted(grid: Grid) -> list[int]:
    return [max(cell_len(text) for text in column) for column in zip(grid.headers, *grid.rows, strict=True)]


def _least(grid: Grid) -> list[int]:
    """Numbers are as wide as they are; names are wrapped, and so are headers between their words."""
    cells = [max(cell_len(text) for text in column) for column in zip(*grid.rows, strict=True)]
    words = [max(map(cell_len, header.split()), default=0) for header in grid.headers]
    name = min(_NAME, _NAMES // max(1, grid.names))
    return [
        min(wanted, name) if i < grid.names else max(cells[i], min(words[i], _HEADER))
        for i, wanted in enumerate(_wanted(grid))
    ]
