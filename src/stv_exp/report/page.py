"""A report as one thing that is printed and written: tables, pictures and sentences."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from tabulate import tabulate

from stv_exp.disk.files import replaced_file, write_text
from stv_exp.disk.locks import locked
from stv_exp.errors import StvError
from stv_exp.report.gallery import PICTURES
from stv_exp.report.pictures.saved import write_png
from stv_exp.report.screen import print_line, print_table
from stv_exp.report.tables import Table
from stv_exp.report.text import markdown, one_line

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Page:
    """`titles` are those of the tables that are printed, by name; `runs` is written as it is."""

    tables: Sequence[Table]
    titles: Mapping[str, str]
    runs: pd.DataFrame
    pictures: Mapping[str, Figure]
    notes: Sequence[str]

    def write(self, folder: Path) -> None:
        """Write everything, and remove what an earlier report has written and this one has not."""
        folder.mkdir(parents=True, exist_ok=True)
        for table in self.tables:
            _write_table(folder, table)
        write_text(folder / "runs.csv", self.runs.to_csv(index=False))
        for name, figure in self.pictures.items():
            _write_picture(folder / name, figure)
        if not any(table.name == "paired" for table in self.tables):
            _remove(folder, [f"paired.{ending}" for ending in ("md", "tex", "csv")])
        _remove(folder, [name for name in PICTURES if name not in self.pictures])

    def show(self) -> None:
        """Print tables and sentences."""
        for table in self.tables:
            if table.name in self.titles:
                print_table(table, self.titles[table.name])
        for note in self.notes:
            print_line(f"note: {note}")

    def contents(self) -> str:
        tables = ", ".join(table.name for table in self.tables)
        return f"{tables} (.md .csv .tex), {', '.join(self.pictures)}"


@contextmanager
def held(folder: Path) -> Iterator[OSError | None]:
    """Hold the lock of a folder, where the disk takes one: what was finished can be read without."""
    obstacle = None
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except OSError as error:
            obstacle = error
        yield obstacle


def say_written(page: Page, folder: Path, obstacle: OSError | None) -> None:
    """Print where the tables are; raise `StvError` where they should be somewhere and are not."""
    if obstacle is None:
        print_line(f"Written to {folder}: {page.contents()}")
        return
    reason = one_line(obstacle.strerror or obstacle)
    if obstacle.errno in _READ_ONLY:
        print_line(f"note: The tables were not written, as {folder} can only be read ({reason}).")
        return
    raise StvError(
        f"The tables could not be written to {one_line(folder)} ({reason}); make room there and run the report again."
    )


def _write_table(folder: Path, table: Table) -> None:
    sides = ("left", *("right" for _ in table.headers[1:]))
    cells = [[markdown(cell) for cell in row] for row in [table.headers, *table.rows]]
    texts = {
        # Not parsed again: 1.000 is to stay 1.000.
        "md": tabulate(cells[1:], cells[0], "github", colalign=sides, disable_numparse=True),
        "tex": tabulate(table.rows, table.headers, "latex_booktabs", colalign=sides, disable_numparse=True),
    }
    for ending, text in texts.items():
        write_text(folder / f"{table.name}.{ending}", text + "\n")
    write_text(folder / f"{table.name}.csv", pd.DataFrame(table.rows, columns=table.headers).to_csv(index=False))


def _write_picture(path: Path, figure: Figure) -> None:
    with replaced_file(path) as new:
        write_png(figure, new)


def _remove(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
