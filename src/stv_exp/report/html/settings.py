"""Every setting of the runs: once where all share it, else a column of the table of runs, beside the command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from stv_exp.config import Config
from stv_exp.report.html.grid import Grid
from stv_exp.report.text import shown

_SECTIONS = tuple(name for name, value in asdict(Config()).items() if isinstance(value, dict))
_CAPTION = "Every run: its result, the settings that vary, its command"
_TOLD = ("method.name", "dataset.name", "dataset.task")  # by columns of their own


def runs_grid(runs: pd.DataFrame) -> Grid:
    """A row a run, by task and accuracy: its result, the settings that vary, its command."""
    varying = [key for key in _settings(runs) if key not in _TOLD and _values(runs, key).nunique() > 1]
    ordered = runs.sort_values(["task", "accuracy"], ascending=[True, False], kind="stable")
    headers = ["label", "task", "seed", "accuracy", "seconds", *varying, "run", "command"]
    return Grid(_CAPTION, headers, [_row(run, varying) for _, run in ordered.iterrows()])


def shared(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """Settings of which there is one value among the runs that have read them."""
    return [(key, own.iloc[0]) for key in _settings(runs) if (own := _values(runs, key)).nunique() == 1]


def _settings(runs: pd.DataFrame) -> list[str]:
    return [key for key in map(str, runs) if key.partition(".")[0] in _SECTIONS and "." in key]


def _values(runs: pd.DataFrame, key: str) -> pd.Series:
    return runs[key].dropna().map(_told)


def _row(run: pd.Series, varying: Sequence[str]) -> list[str]:
    known = [_told(run[key]) if isinstance(run[key], list) or pd.notna(run[key]) else "" for key in varying]
    result = [f"{run['accuracy']:.3f}", f"{run['seconds.total']:.2f}"]
    return [run["label"], run["task"], str(run["seed"]), *result, *known, run["run"], _command(run["overrides"])]


def _told(value: object) -> str:
    """A value as it was set; a column that some runs lack holds whole numbers as floats."""
    if isinstance(value, str) and value:
        return value
    return shown(int(value) if isinstance(value, float) and value.is_integer() else value)


def _command(overrides: object) -> str:
    """What makes this run alone, also one of a sweep."""
    return shlex.join(["python", "-m", "stv_exp", *map(str, overrides)]) if isinstance(overrides, list) else ""
