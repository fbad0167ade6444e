"""Example predictions: a query with its pictures, and what each method answered to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stv_exp.report.text import brief

CARDS = 48  # of all tasks together
_LONGEST = 240  # characters of a text
_PICTURE = re.compile(r"[A-Za-z0-9+/]+=*")


@dataclass(frozen=True)
class Answer:
    """What a label's run said; `correct` is its score in 0-1."""

    label: str
    text: str
    correct: float

    @property
    def right(self) -> bool:
        return self.correct >= 0.5


@dataclass(frozen=True)
class Card:
    """One query; `pictures` are WebP in base64."""

    task: str
    id: str
    question: str
    expected: str
    pictures: list[str]
    answers: list[Answer]


def cards(runs: pd.DataFrame, predictions: pd.DataFrame, labels: Sequence[str]) -> list[Card]:
    """Queries of every task, those first that labels disagree on; a label answers as its run with the first seed did.

    A third of them are queries that all got right, as far as there are. Answers are in the order of `labels`.
    """
    places = predictions["label"].map({label: place for place, label in enumerate(labels)})
    predictions = predictions.assign(place=places).sort_values("place", kind="stable")
    first = predictions[predictions["seed"] == predictions.groupby(["label", "task"])["seed"].transform("min")]
    tasks = first.groupby("task")
    pictures = {task: _pictures(own) for task, own in runs.groupby("task")}
    each = max(4, CARDS // max(1, tasks.ngroups))
    return [card for task, own in tasks for card in _of_task(str(task), own, pictures[task], each)]


def _of_task(task: str, own: pd.DataFrame, pictures: dict[str, list[str]], n: int) -> list[Card]:
    answers = dict(list(own.groupby("id", sort=False)))
    scores = own.groupby("id", sort=False)["correct"].agg(["min", "mean"])
    # Where runs have kept pictures, a query without one says little.
    order = scores.assign(bare=~scores.index.isin(list(pictures)), alike=(scores["mean"] - 0.5).abs())
    order = order.sort_values(["bare", "alike"], kind="stable")
    wrong, right = order.index[order["min"] < 0.5], order.index[order["min"] >= 0.5]
    most = max(2 * n // 3, n - len(right))
    return [_card(task, answers[id], pictures) for id in (*wrong[:most], *right[: n - min(most, len(wrong))])]


def _card(task: str, answers: pd.DataFrame, pictures: dict[str, list[str]]) -> Card:
    query = answers.iloc[0]
    expected = _text(" / ".join(dict.fromkeys(query["answers"])))
    said = [
        Answer(label, _text(text), float(correct))
        for label, text, correct in zip(answers["label"], answers["prediction"], answers["correct"], strict=True)
    ]
    shown = pictures.get(query["id"], [])
    return Card(task, query["id"], _text(query["question"]), expected, shown, said)


def _text(text: str) -> str:
    return brief(text, _LONGEST)


def _pictures(runs: pd.DataFrame) -> dict[str, list[str]]:
    """The pictures of a task's queries, from whichever run has kept them."""
    found: dict[str, list[str]] = {}
    for folder in map(Path, runs["folder"]):
        for line in _lines(folder / "examples.jsonl"):
            if _is_example(line):
                found.setdefault(line["id"], line["pictures"])
    return found


def _lines(path: Path) -> Iterator[Any]:
    """What a run has kept, if anything; lines that others have broken cost no page."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError, RecursionError):
            yield json.loads(line)


def _is_example(line: Any) -> bool:
    if not isinstance(line, dict) or not isinstance(line.get("id"), str) or not isinstance(line.get("pictures"), list):
        return False
    return all(isinstance(picture, str) and _PICTURE.fullmatch(picture) for picture in line["pictures"])
