"""The comparison of runs: tables on screen, as Markdown, CSV and LaTeX, and pictures."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from stv_exp.disk.study import Study
from stv_exp.report import heads
from stv_exp.report.axes import Axes
from stv_exp.report.collapse import k_collapse
from stv_exp.report.common import compared
from stv_exp.report.cost import cost, mean_cost
from stv_exp.report.folders import entries, nothing
from stv_exp.report.page import Page, held, say_written
from stv_exp.report.paired import paired
from stv_exp.report.pivot import completed, pivot
from stv_exp.report.question import Question
from stv_exp.report.runs import Loaded, load
from stv_exp.report.screen import print_line
from stv_exp.report.selection import described
from stv_exp.report.tables import Table, by_task, headline

_DATASETS = Axes(rows=("variant",), columns=("dataset.name",), by=("model",))


def report(outputs: Path, study: str | None = None, question: Question | None = None, *, printed: bool = True) -> Path:
    """Print the comparison of what is on disk and write it to a folder, which is returned; no run is changed.

    Without `printed` the tables are only written; where that cannot be, they are only printed. Of two processes the
    later one reads what the earlier one has left. Raises `StvError` where nothing is done.
    """
    question = question or Question()
    base = outputs / "report" if study is None else Study(outputs, study).folder
    folder = question.folder(base)
    entries(outputs)  # which complains of a folder that cannot be read
    if not entries(outputs / "runs") or not (study is None or entries(base)):
        raise nothing(outputs, study)
    with held(base) as obstacle:
        began = time.time()
        loaded = load(outputs, study, question)
        page = None if loaded.runs.empty else _page(loaded, outputs, study, question)
        if page is not None and obstacle is None:
            obstacle = _written(page, folder, began)
    if page is None:
        for note in loaded.notes:
            print_line(f"note: {note}")
        raise nothing(outputs, study)
    if printed:
        page.show()
    say_written(page, folder, obstacle)
    return folder


def _page(loaded: Loaded, outputs: Path, study: str | None, question: Question) -> Page:
    title = question.title(study or str(outputs))
    if question.heads:
        page = Page(*heads.tables(loaded.runs, outputs, title))
    else:
        page = _asked(loaded, title) if question.axes.asked else _whole(loaded, outputs, title, question.against)
    chosen = [described(loaded.runs, question.select)] if question.select else []
    return replace(page, notes=[*chosen, *page.notes, *loaded.notes])


def _asked(loaded: Loaded, title: str) -> Page:
    """A table for each number that is asked for."""
    axes = completed(loaded.axes, loaded.runs)
    made = [pivot(loaded.runs, axes, value) for value in axes.values or ("accuracy",)]
    notes = dict.fromkeys(note for _, own in made for note in own)
    return Page([replace(table, title=f"{title}: {table.title}") for table, _ in made], list(notes))


def _whole(loaded: Loaded, outputs: Path, title: str, against: str | None) -> Page:
    from stv_exp.report.gallery import gallery  # which draws

    made, notes = tables(loaded, title, against)
    runs, _ = compared(loaded.runs)
    pictures, undrawn = gallery(runs, outputs)
    sentences = [*k_collapse(runs), *dict.fromkeys(notes), *undrawn]
    return Page(made, sentences, loaded.runs, loaded.predictions, pictures)


def tables(loaded: Loaded, title: str, against: str | None = None) -> tuple[list[Table], list[str]]:
    """The tables of a page that nothing is asked of, and notes.

    Rows are compared on what they have in common; the tables by task and dataset and the costs have everything.
    """
    runs, notes = compared(loaded.runs)
    predictions = loaded.predictions.merge(runs[["label", "task", "seed"]])
    made = [headline(runs, predictions, title), by_task(loaded.runs)]
    if loaded.runs["dataset.name"].nunique() > 1:
        table, own = pivot(loaded.runs, _DATASETS, "accuracy", "datasets")
        made, notes = [*made, table], [*notes, *own]
    pairs, own = paired(runs, predictions, against)
    made, notes = [*made, pairs, mean_cost(loaded.runs), cost(loaded.runs)], [*notes, *own]
    return [table for table in made if table.rows], notes


def _written(page: Page, folder: Path, read_at: float) -> OSError | None:
    """Write the page; what keeps it from being written, so that it is printed first."""
    try:
        page.write(folder, read_at)
    except OSError as error:
        return error
    return None
