"""Which runs have answered the same questions: a task is its data and how answers to it are scored, not its name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from stv_exp.errors import printable
from stv_exp.report.record import Record
from stv_exp.report.text import shown

# Settings of the dataset that say how a method was fit and asked: other rows, but the same task.
FIT = ("support", "validation", "label_noise", "max_new_tokens", "streaming", "template")


def is_fit(key: str) -> bool:
    """Whether a dotted setting is of the dataset but not of the task."""
    section, _, rest = key.partition(".")
    return section == "dataset" and rest.partition(".")[0] in FIT


def task_labels(records: Sequence[Record], metric: str | None = None) -> tuple[list[str], list[str]]:
    """A label a run, the same only where the task is, and sentences on tasks that share their name.

    With `metric` all are scored by it, whatever they were scored by.
    """
    names = [printable(f"{r.settings['dataset.name']}/{r.settings['dataset.task']}") for r in records]
    identities = [_identity(record, metric) for record in records]
    labels = list(names)
    notes = []
    for name in dict.fromkeys(names):
        own = [i for i, other in enumerate(names) if other == name]
        told = _told_apart(name, [identities[i] for i in own])
        for i, label in zip(own, told, strict=True):
            labels[i] = label
        if len(kinds := list(dict.fromkeys(told))) > 1:
            notes.append(f"{len(kinds)} tasks have the name {name} and are kept apart: {', '.join(kinds)}.")
    return labels, notes


def _identity(record: Record, metric: str | None) -> dict[str, Any]:
    """The root first: it says best what a reader wants to know."""
    settings = {k: v for k, v in record.settings.items() if k.startswith("dataset.") and not is_fit(k)}
    if metric is not None:
        settings.pop("dataset.metric", None)
    root = {k: v for k, v in settings.items() if k == "dataset.root"}
    return root | settings | {"data": record.data, "items": record.asked}


def _told_apart(name: str, identities: Sequence[dict[str, Any]]) -> list[str]:
    """The name and as few of the differences as tell the identities apart."""
    labels = [name for _ in identities]
    different = len({json.dumps(own, sort_keys=True) for own in identities})
    for key in dict.fromkeys(key for own in identities for key in own):
        more = [_with(label, key, own) for label, own in zip(labels, identities, strict=True)]
        if len(set(more)) > len(set(labels)):
            labels = more
        if len(set(labels)) == different:
            break
    return labels


def _with(label: str, key: str, identity: dict[str, Any]) -> str:
    return f"{label} {printable(key.removeprefix('dataset.'))}={shown(identity[key])}" if key in identity else label
