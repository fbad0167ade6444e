"""The axes of a table that a user asks for, by full or short keys, and the runs that it is over."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce

import pandas as pd

from stv_exp.errors import StvError
from stv_exp.report.cells import plain
from stv_exp.report.labels import METHOD, MODEL
from stv_exp.report.text import brief, in_size, listed

_AXES = ("rows", "columns", "by")
_COLUMNS = {METHOD: "method", MODEL: "model", "dataset": "dataset.name"}  # one name for one axis


@dataclass(frozen=True)
class Axes:
    """What the rows, columns and blocks of a table are, and its numbers: keys of `frame.runs`."""

    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def asked(self) -> bool:
        return bool(self.keys or self.values)

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.by, *self.rows, *self.columns)

    def settings(self) -> set[str]:
        """The settings that the axes tell."""
        return {{"method": METHOD, "model": MODEL}.get(key, key) for key in self.keys}

    def resolved(self, runs: pd.DataFrame) -> Axes:
        """The same under full keys; raises `StvError` for what is no column of the runs, or no number."""
        axes = {name: tuple(find(f"--{name}", key, runs) for key in getattr(self, name)) for name in _AXES}
        numbers = runs.select_dtypes("number")
        return Axes(**axes, values=tuple(find("--values", key, numbers) for key in self.values))


def find(option: str, key: str, runs: pd.DataFrame) -> str:
    """The column that a full key or the end of one means; raises `StvError` where it is none or several."""
    columns = list(map(str, runs.columns))
    if (name := _COLUMNS.get(key, key)) in columns:
        return name
    meant = [column for column in columns if column.endswith(f".{key}")]
    if len(meant) > 1:
        raise StvError(f"{option} {brief(key)} may be {' or '.join(meant)}; write the one that you mean.")
    if not meant:
        nothing = "no number" if option == "--values" else "nothing"
        raise StvError(f"{option} {brief(key)} is {nothing} that these runs record; {_advice(key, runs)}")
    return meant[0]


def chosen(runs: pd.DataFrame, where: Sequence[str]) -> list[bool]:
    """Which runs fulfil every condition `key=value[,value]`; raises `StvError` where none does."""
    kept = pd.Series(True, index=runs.index)
    for condition in where:
        key, equals, values = condition.partition("=")
        if not equals:
            raise StvError(f"--where {brief(condition)} has no value; write --where key=value[,value].")
        column = find("--where", key, runs)
        kept &= reduce(pd.Series.__or__, [runs[column].map(lambda own, v=v: _is(own, v)) for v in values.split(",")])
        if not kept.any():
            there = sorted({plain(value) for value in runs[column]}, key=in_size)
            raise StvError(f"--where {brief(condition)} leaves no run; {column} is one of {listed(there, 20)}.")
    return kept.tolist()


def _is(value: object, asked: str) -> bool:
    """Numbers by their size, `true` as on the command line of a run."""
    try:
        return plain(value).casefold() == asked.casefold() or float(str(value)) == float(asked)
    except ValueError:
        return False


def _advice(key: str, runs: pd.DataFrame) -> str:
    columns = list(map(str, runs.columns))
    names = {column.rpartition(".")[2]: column for column in columns} | {column: column for column in columns}
    if near := difflib.get_close_matches(key, names, n=1):
        return f"did you mean {names[near[0]]}?"
    return f"what varies is {listed(sorted(_varying(runs)), 20) or 'nothing'}."


def _varying(runs: pd.DataFrame) -> Collection[str]:
    own = ("run", "folder", "overrides", "bank")
    return [str(key) for key in runs.columns if key not in own and runs[key].map(plain).nunique() > 1]
