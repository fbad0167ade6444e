"""A number of the runs along the axes that are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from stv_exp.errors import StvError
from stv_exp.report.axes import Axes
from stv_exp.report.cells import deviated, plain
from stv_exp.report.common import compared
from stv_exp.report.tables import Table
from stv_exp.report.tasks import is_fit
from stv_exp.report.text import file_name, in_size

Place = tuple[str, ...]


def completed(axes: Axes, runs: pd.DataFrame) -> Axes:
    """The axes, and what keeps unlike runs out of one cell: a block a model, a row a variant, where these vary."""
    by = axes.by if "model" in axes.keys or runs["model"].nunique() == 1 else ("model", *axes.by)
    if runs["variant"].nunique() == 1 and (axes.rows or axes.columns):
        return replace(axes, by=by)
    return replace(axes, by=by, rows=(*axes.rows, "variant") if "method" in axes.rows else ("variant", *axes.rows))


def pivot(runs: pd.DataFrame, axes: Axes, value: str, name: str = "") -> tuple[Table, list[str]]:
    """Mean over tasks, then mean and deviation over seeds, at each place on the axes; sentences on what is left out.

    Cells that differ in more than their tasks are means over the same tasks. `n` counts seeds, where that varies.
    Raises `StvError` where no run has the number.
    """
    names, runs = _names(axes.keys), runs.dropna(subset=value)
    if runs.empty:
        raise StvError(f"--values {value} is recorded by none of these runs; choose another number.")
    runs, notes = _comparable(runs, axes, names)
    cells = _places(runs, axes.keys)
    split = len(axes.by) + len(axes.rows)
    rows, columns = _sorted(place[:split] for place in cells), _sorted(place[split:] for place in cells)
    texts = _texts(cells, value)
    told = [names[key] if key == "variant" else key for key in axes.keys]
    table = Table(
        name or file_name(f"{value}-by-{'-'.join(told)}"),
        f"{value} by {', '.join(told[len(axes.by) :])}{_over(cells)}",
        [*(names[key] for key in (*axes.by, *axes.rows)), *(_header(axes.columns, c, names) or value for c in columns)],
        [[*row, *(texts.get((*row, *column), "-") for column in columns)] for row in rows],
        by=len(axes.by),
        names=len(axes.rows),
    )
    return table.varying(), notes


def _names(keys: Sequence[str]) -> dict[str, str]:
    """Short names of the axes, in full where two are alike."""
    short = {key: key.removesuffix(".name").rpartition(".")[2] for key in keys}
    short |= {"variant": "settings" if "method" in keys else "method"}
    alike = Counter(short.values())
    return {key: name if alike[name] == 1 else key for key, name in short.items()}


def _places(runs: pd.DataFrame, keys: Sequence[str]) -> dict[Place, pd.DataFrame]:
    """The runs by what they have of the keys."""
    columns = [list(map(plain, runs[key].tolist())) for key in keys]
    found: dict[Place, list[int]] = {}
    for i in range(len(runs)):
        found.setdefault(tuple(column[i] for column in columns), []).append(i)
    return {place: runs.iloc[own] for place, own in found.items()}


def _comparable(runs: pd.DataFrame, axes: Axes, names: Mapping[str, str]) -> tuple[pd.DataFrame, list[str]]:
    """The runs on common tasks; where tasks or seeds are themselves an axis, at each place on it."""
    fixed = [key for key in axes.keys if key in ("task", "seed") or (key.startswith("dataset.") and not is_fit(key))]
    free = [key for key in axes.keys if key not in fixed]
    kept, notes = [runs.iloc[:0]], []
    for own in _places(runs, fixed).values():
        cells = [cell.assign(label=_header(free, place, names)) for place, cell in _places(own, free).items()]
        found, more = compared(pd.concat(cells))
        kept.append(found)
        notes += more
    return pd.concat(kept), list(dict.fromkeys(notes))


def _header(keys: Sequence[str], place: Place, names: Mapping[str, str]) -> str:
    """A place in words: a number is told with its key."""
    told = zip(keys, place, strict=True)
    return " ".join(text if in_size(text)[0] and text != "-" else f"{names[key]}={text}" for key, text in told)


def _sorted(places: Iterable[Place]) -> list[Place]:
    return sorted(set(places), key=lambda place: [in_size(text) for text in place])


def _over(cells: Mapping[Place, pd.DataFrame]) -> str:
    """What each cell is a mean over, where all are over as many."""
    numbers = {what: {own[what].nunique() for own in cells.values()} for what in ("task", "seed")}
    told = [f"{one} {what}{'s' * (one > 1)}" for what, (one, *more) in numbers.items() if not more]
    return f" ({', '.join(told)})" if told else ""


def _texts(cells: Mapping[Place, pd.DataFrame], value: str) -> dict[Place, str]:
    seeds = {place: own.groupby("seed")[value].mean().astype(float) for place, own in cells.items()}
    varies = len({len(own) for own in seeds.values()}) > 1
    return {place: deviated(own, value) + (f" (n={len(own)})" if varies else "") for place, own in seeds.items()}
