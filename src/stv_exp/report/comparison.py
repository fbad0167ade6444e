"""The comparison of runs: a table on screen, as Markdown, CSV and LaTeX, and its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stv_exp.disk.study import Study
from stv_exp.errors import StvError
from stv_exp.report.collapse import k_collapse
from stv_exp.report.common import compared
from stv_exp.report.folders import entries
from stv_exp.report.gallery import gallery
from stv_exp.report.page import Page, held, say_written
from stv_exp.report.runs import Loaded, load
from stv_exp.report.screen import print_line
from stv_exp.report.selection import described
from stv_exp.report.tables import HEADERS, PAIRED_HEADERS, Table, by_task, pairwise, summary
from stv_exp.report.text import one_line


def report(
    outputs: Path,
    study: str | None = None,
    against: str | None = None,
    *,
    metric: str | None = None,
    select: Sequence[str] = (),
    printed: bool = True,
) -> Path:
    """Print the comparison of what is on disk and write it to a folder, which is returned.

    `against` is the method that the others are compared with, item by item (default: the best). `metric` scores the
    predictions anew. `select` names settings, each chosen on validation accuracy: only the chosen runs are compared.
    With either the tables go to a folder of their own; no run is changed. Without `printed` they are only written;
    where that cannot be, they are only printed. Of two processes the later one reads what the earlier one has left.
    """
    base = outputs / "report" if study is None else Study(outputs, study).folder
    entries(outputs)  # which complains of a folder that cannot be read
    if not entries(outputs / "runs") or not (study is None or entries(base)):
        raise _nothing(outputs, study)
    folder = _folder(base, metric, select)
    with held(base) as obstacle:
        loaded = load(outputs, study, select, metric)
        page = None if loaded.runs.empty else _page(loaded, outputs, study, against, metric, select)
        if page is not None and obstacle is None:
            obstacle = _written(page, folder)
    if page is None:
        for note in loaded.notes:
            print_line(f"note: {note}")
        raise _nothing(outputs, study)
    if printed:
        page.show()
    say_written(page, folder, obstacle)
    return folder


def _page(
    loaded: Loaded, outputs: Path, study: str | None, against: str | None, metric: str | None, select: Sequence[str]
) -> Page:
    """Rows are compared on what they have in common; the table by task has everything."""
    runs, notes = compared(loaded.runs)
    scores = loaded.scores.merge(runs[["label", "task", "seed"]])
    tasks, paired = by_task(loaded.runs), pairwise(runs, scores, against)
    tables = [Table("table", HEADERS, summary(runs, scores))]
    tables.append(Table("tasks", list(tasks[0]), [list(task.values()) for task in tasks]))
    titles = {"table": (str(outputs) if study is None else study) + (f", rescored by {metric}" if metric else "")}
    if paired:
        tables.append(Table("paired", PAIRED_HEADERS, paired))
        titles["paired"] = f"against {paired[0][1]}, on the same items"
    pictures, undrawn = gallery(runs, outputs)
    chosen = [described(loaded.runs, select)] if select else []
    sentences = [*chosen, *k_collapse(runs), *notes, *loaded.notes, *undrawn]
    return Page(tables, titles, loaded.runs.drop(columns=["folder", "bank"]), pictures, sentences)


def _written(page: Page, folder: Path) -> OSError | None:
    """Write the page; what keeps it from being written, so that it is printed first."""
    try:
        page.write(folder)
    except OSError as error:
        return error
    return None


def _nothing(outputs: Path, study: str | None) -> StvError:
    where = one_line(outputs if study is None else f"the study {study} of {outputs}")
    return StvError(f"There is no finished run in {where}; run `python -m stv_exp +experiment=quickstart` first.")


def _folder(base: Path, metric: str | None, select: Sequence[str]) -> Path:
    """Where the tables go: those of a selection or another metric below the runs' own, which they leave alone."""
    folder = base / f"select-{'-'.join(select)}" if select else base
    return folder / metric if metric else folder
