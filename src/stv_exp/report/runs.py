"""The runs of a report: the tables of `frame`, and sentences on the runs that are left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

import pandas as pd

from stv_exp.disk.locks import is_held
from stv_exp.errors import StvError
from stv_exp.metrics import METRICS
from stv_exp.report import selection
from stv_exp.report.axes import Axes, chosen
from stv_exp.report.columns import LEADING, items, recorded
from stv_exp.report.damage import DamagedError
from stv_exp.report.folders import run_folders
from stv_exp.report.labels import MODEL, Rows
from stv_exp.report.pay import queries_to_pay
from stv_exp.report.question import Question
from stv_exp.report.record import Record, read
from stv_exp.report.states import read_status, unfinished
from stv_exp.report.tasks import task_labels
from stv_exp.report.text import brief


@dataclass(frozen=True)
class Loaded:
    """`runs` and `predictions` as in `frame`, and sentences on what is not in them.

    `axes` are those that were asked for, under their full keys; the `variant` of a run leaves out what they tell.
    """

    runs: pd.DataFrame
    predictions: pd.DataFrame
    notes: list[str]
    axes: Axes = field(default_factory=Axes)


@dataclass(frozen=True)
class Found:
    """Finished runs as they were read, and sentences on the others: what several questions share."""

    records: Sequence[Record]
    notes: Sequence[str]


def find(outputs: Path, study: str | None = None, metric: str | None = None) -> Found:
    """Every finished run, or those of one study, scored anew with `metric`; raises `StvError` for an unknown one."""
    if metric is not None and metric not in METRICS:
        raise StvError(f"--metric {metric} is unknown; choose one of {', '.join(METRICS)}.")
    notes: list[str] = []
    return Found(list(_records(run_folders(outputs, study, notes), metric, notes)), notes)


def load(outputs: Path, study: str | None = None, question: Question | None = None) -> Loaded:
    """What is on disk, as `labelled` says."""
    question = question or Question()
    return labelled(find(outputs, study, question.metric), question)


def labelled(found: Found, question: Question) -> Loaded:
    """What is asked of runs that were found with the question's metric; `runs` is empty where nothing is done.

    Where settings are selected, only the rows and with the columns of `selection.best_on_validation`, the selected keys
    being no part of the label. Raises `StvError` for what cannot be asked of these runs.
    """
    records, notes = found.records, found.notes
    if not records:
        return Loaded(pd.DataFrame(), pd.DataFrame(), [*notes])
    tasks, task_notes = task_labels(records, question.metric)
    runs = recorded(records, question.metric).assign(task=tasks, model=Rows(records, tasks).models())
    runs = runs.assign(queries_to_pay=queries_to_pay(runs))  # also against prompting that is not to be shown
    axes, kept = question.axes.resolved(runs), chosen(runs, question.where)
    records, tasks = list(compress(records, kept)), list(compress(tasks, kept))
    if unscored := next((record.unscored for record in records if record.unscored), ""):
        raise StvError(unscored)
    rows = Rows(records, tasks, () if question.metric is None else ("dataset.metric",))
    selection.check_keys(question.select, {name for own in rows.varying.values() for name in own})
    labels = rows.labels(question.select)
    variants = rows.labels({*question.select, MODEL, *axes.settings()})
    runs = _in_order(runs[kept].assign(label=labels, variant=variants))
    if question.select:
        runs = selection.best_on_validation(runs, question.select)
    return Loaded(runs, items(records, runs), [*notes, *task_notes, *rows.notes(labels)], axes)


def _in_order(runs: pd.DataFrame) -> pd.DataFrame:
    """The columns that every run has, before its settings and numbers."""
    return runs[[*LEADING, *(key for key in runs.columns if key not in LEADING)]].reset_index(drop=True)


def _records(folders: Sequence[Path], metric: str | None, notes: list[str]) -> Iterator[Record]:
    """The finished runs; a bad folder is named, and costs no other one."""
    for folder in folders:
        name = brief(folder.name)
        try:
            status = read_status(folder)
            if (sentence := unfinished(folder, status)) is not None:
                notes.append(sentence)
            elif (record := read(folder, status, metric)) is not None:
                yield record
        except DamagedError as error:
            made = "it is being made" if is_held(folder) else "the same command makes it anew"
            notes.append(f"Run {name} is damaged ({error}): it is left out; {made}.")
