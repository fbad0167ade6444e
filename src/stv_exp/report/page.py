"""A report as one thing that is printed and written: tables, pictures and sentences."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from tabulate import tabulate

from stv_exp.disk.files import replaced_file, write_text
from stv_exp.disk.locks import locked
from stv_exp.errors import StvError
from stv_exp.report.screen import print_line, print_table
from stv_exp.report.tables import Table
from stv_exp.report.text import brief, markdown

if TYPE_CHECKING:  # a table by itself needs no pictures
    from matplotlib.figure import Figure

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
TABLES = ("table", "tasks", "datasets", "paired", "stages", "cost")
HTML = "report.html"


@dataclass(frozen=True)
class Page:
    """Tables, of which those with a title are printed, and sentences.

    A whole report has the frames of its runs and predictions and pictures too, and is one HTML page beside the tables.
    """

    tables: Sequence[Table]
    notes: Sequence[str]
    runs: pd.DataFrame | None = None
    predictions: pd.DataFrame | None = None
    pictures: Mapping[str, Figure] = field(default_factory=dict)

    def write(self, folder: Path, read_at: float) -> None:
        """Write everything; a whole report removes what an earlier one has written and this one has not.

        `runs.csv` is as old as its runs were read, `read_at`: what has ended since is news to it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for table in self.tables:
            _write_table(folder, table)
        for name, figure in self.pictures.items():
            write_picture(folder / name, figure)
        if self.runs is not None and self.predictions is not None:
            write_text(folder / HTML, self._html(self.runs, self.predictions))
            self._remove_others(folder)
            # Last: by its age a study is known to be drawn, and drawn whole.
            with replaced_file(folder / "runs.csv") as new:
                new.write_text(self.runs.drop(columns=["folder"]).to_csv(index=False), encoding="utf-8")
                os.utime(new, (read_at, read_at))

    def show(self) -> None:
        """Print tables and sentences."""
        for table in self.tables:
            if table.title:
                print_table(table)
        for note in self.notes:
            print_line(f"note: {note}")

    def contents(self) -> str:
        tables = ", ".join(table.name for table in self.tables)
        pages = [] if self.runs is None else [HTML]
        return ", ".join([f"{tables} (.md .csv .tex)", *self.pictures, *pages])

    def _html(self, runs: pd.DataFrame, predictions: pd.DataFrame) -> str:
        from stv_exp.report.html.document import Document  # which draws

        first, *others = self.tables
        titles = {table.name: table.title for table in others}
        return Document(first.title, runs, predictions, self.tables, titles, self.pictures, self.notes).html()

    def _remove_others(self, folder: Path) -> None:
        from stv_exp.report.gallery import PICTURES  # which draws

        kept = {table.name for table in self.tables}
        stale = [f"{name}.{ending}" for name in TABLES if name not in kept for ending in ("md", "tex", "csv")]
        for name in (*stale, *(name for name in PICTURES if name not in self.pictures)):
            (folder / name).unlink(missing_ok=True)


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
    reason = brief(obstacle.strerror or obstacle)
    if obstacle.errno in _READ_ONLY:
        print_line(f"note: The tables were not written, as {folder} can only be read ({reason}).")
        return
    raise StvError(
        f"The tables could not be written to {brief(folder)} ({reason}); make room there and run the report again."
    )


def _write_table(folder: Path, table: Table) -> None:
    names = table.by + table.names
    sides = ["left" if i < names else "right" for i in range(len(table.headers))]
    cells = [[markdown(cell) for cell in row] for row in [table.headers, *table.rows]]
    texts = {
        # Not parsed again: 1.000 is to stay 1.000.
        "md": tabulate(cells[1:], cells[0], "github", colalign=sides, disable_numparse=True),
        "tex": tabulate(table.rows, table.headers, "latex_booktabs", colalign=sides, disable_numparse=True),
    }
    for ending, text in texts.items():
        write_text(folder / f"{table.name}.{ending}", text + "\n")
    write_text(folder / f"{table.name}.csv", table.csv())


def write_picture(path: Path, figure: Figure) -> None:
    from stv_exp.report.pictures.saved import write_png  # which draws

    with replaced_file(path) as new:
        write_png(figure, new)
