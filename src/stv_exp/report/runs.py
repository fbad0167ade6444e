"""The runs of a report: one table row each, their items, and sentences on those that are left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from stv_exp.disk.locks import is_held
from stv_exp.errors import StvError
from stv_exp.metrics import METRICS
from stv_exp.report import selection
from stv_exp.report.damage import DamagedError
from stv_exp.report.folders import run_folders
from stv_exp.report.labels import Rows
from stv_exp.report.record import Record, read
from stv_exp.report.states import read_status, unfinished
from stv_exp.report.tasks import task_labels
from stv_exp.report.text import one_line, printable

_NUMBERS = {
    "accuracy": "accuracy",
    "validation_accuracy": "validation_accuracy",
    "n": "n",
    "seconds": "seconds.total",
    "location_search_seconds": "location_search_seconds",
    "candidate_evaluations": "candidate_evaluations",
    "search_token_forwards": "search_token_forwards",
}


@dataclass(frozen=True)
class Loaded:
    """`runs` has one row for each run that is done, `scores` one for each item of each run (id, score in 0-1).

    Columns of `runs`: signature, folder, bank, method, label (method and what varies), task, seed, accuracy,
    validation_accuracy (NaN without), n, seconds, location_search_seconds, candidate_evaluations,
    search_token_forwards (scan included). Columns of `scores` beside its own: folder, label, task, seed.
    """

    runs: pd.DataFrame
    scores: pd.DataFrame
    notes: list[str]


def load(outputs: Path, study: str | None = None, select: Sequence[str] = (), metric: str | None = None) -> Loaded:
    """What is on disk; `runs` is empty where nothing is done.

    With `select` only the rows and with the columns of `selection.best_on_validation`, the selected keys being no part
    of the label. With `metric` the predictions are scored anew.
    """
    if metric is not None and metric not in METRICS:
        raise StvError(f"--metric {metric} is unknown; choose one of {', '.join(METRICS)}.")
    notes: list[str] = []
    folders = run_folders(outputs, study, notes)
    records = list(_records(folders, metric, notes))
    if not records:
        return Loaded(pd.DataFrame(), pd.DataFrame(), notes)
    return _labelled(records, select, metric, notes)


def _labelled(records: Sequence[Record], select: Sequence[str], metric: str | None, notes: list[str]) -> Loaded:
    tasks, task_notes = task_labels(records, metric)
    rows = Rows(records, tasks, () if metric is None else ("dataset.metric",))
    selection.check_keys(select, {name for own in rows.varying.values() for name in own})
    labels = rows.labels(select)
    runs = pd.DataFrame([_row(record, metric) for record in records]).assign(label=labels, task=tasks)
    runs = runs.astype(dict.fromkeys(("validation_accuracy", "location_search_seconds"), float))
    if select:
        runs = selection.best_on_validation(runs, [record.settings for record in records], select)
    return Loaded(runs, _scores(records, runs), [*notes, *task_notes, *rows.notes(labels)])


def _records(folders: Sequence[Path], metric: str | None, notes: list[str]) -> Iterator[Record]:
    """The finished runs; a bad folder is named, and costs no other one."""
    for folder in folders:
        name = one_line(folder.name)
        try:
            status = read_status(folder)
            if (sentence := unfinished(folder, status)) is not None:
                notes.append(sentence)
            elif (record := read(folder, status, metric)) is not None:
                yield record
        except DamagedError as error:
            made = "it is being made" if is_held(folder) else "the same command makes it anew"
            notes.append(f"Run {name} is damaged ({error}): it is left out; {made}.")


def _row(record: Record, metric: str | None) -> dict[str, object]:
    row: dict[str, object] = {
        "signature": printable(record.folder.name),
        "folder": str(record.folder),
        "bank": record.bank,
        "method": printable(record.method),
        "seed": record.seed,
    }
    row |= {column: record.numbers[key] for column, key in _NUMBERS.items()}
    return row if metric is None else row | {"accuracy": record.items["score"].mean()}


def _scores(records: Sequence[Record], runs: pd.DataFrame) -> pd.DataFrame:
    items = {str(record.folder): record.items for record in records}
    same = ["folder", "label", "task", "seed"]
    return pd.concat([items[run["folder"]].assign(**run[same]) for _, run in runs.iterrows()], ignore_index=True)
