"""How a run is named, tagged and described where many runs are listed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from stv_exp.methods.method import OWN
from stv_exp.tracking.exhibit import Exhibit

TAG = 64  # characters that W&B takes
_NAME = 128
_SIZES = ("method.k", "method.m", "method.shots")
_SECTIONS = ("dataset", "model", *OWN)
_TOLD = ("method", "method.name", *_SIZES, "dataset", "dataset.task")


def name(exhibit: Exhibit) -> str:
    """`stv k=16 m=4 position-shared-0 s0`, with what else its command has set of method, data and model."""
    values, seed = exhibit.values, exhibit.manifest.get("seed")
    sizes = [f"{key.partition('.')[2]}={values[key]}" for key in _SIZES if key in values and values[key] != 0]
    words = [values.get("method.name"), *sizes, *_set(exhibit.overrides), values.get("dataset.task"), f"s{seed}"]
    return " ".join(str(word) for word in words)[:_NAME]


def tags(exhibit: Exhibit, own: Iterable[str] = ()) -> list[str]:
    """Model, dataset, method and study, then the user's own; the end of a path tells it."""
    values = exhibit.values
    model = PurePath(str(values.get("model.name"))).name
    known = [model, values.get("dataset.name"), values.get("method.name"), exhibit.study, *own]
    return list(dict.fromkeys(str(tag)[-TAG:] for tag in known if tag))


def command(exhibit: Exhibit) -> str:
    """What makes this run again."""
    return shlex.join(["python", "-m", "stv_exp", *exhibit.overrides])


def _set(overrides: Iterable[str]) -> Iterator[str]:
    """Settings of the command line that the name does not hold anyway: a sweep may be over any of them."""
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key == "model":
            yield value
        elif key.split(".")[0] in _SECTIONS and key not in _TOLD:
            yield f"{key.rpartition('.')[2]}={value}"
