"""The pictures that runs have something to show in."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from stv_exp.report.damage import DamagedError, check_file
from stv_exp.report.pictures.cost import accuracy_by_cost, cost_bars
from stv_exp.report.pictures.dots import accuracy_dots
from stv_exp.report.pictures.k_and_m import accuracy_by_k, accuracy_maps, by_k_and_m
from stv_exp.report.pictures.rewards import reward_curves
from stv_exp.report.pictures.sensitivity import PANELS, Ranked, location_maps
from stv_exp.report.ranking import ranking
from stv_exp.report.tables import in_order
from stv_exp.report.text import brief, listed

PICTURES = ("accuracy.png", "k_and_m.png", "by_k.png", "cost.png", "stages.png", "rewards.png", "sensitivity.png")
_CURVES = ["reward", "reward_random"]  # of which a search need not have the second
_RANKED_BY = ("method.where", "method.sensitivity", "method.site", "model.name")


def gallery(runs: pd.DataFrame, outputs: Path) -> tuple[dict[str, Figure], list[str]]:
    """Figures by the names of their files, and sentences on those that could not be drawn."""
    swept = by_k_and_m(runs)
    histories, undrawn = _histories(runs)
    rankings, unread = _rankings(runs, outputs)
    figures = (
        accuracy_dots(runs),
        accuracy_maps(swept),
        accuracy_by_k(swept),
        accuracy_by_cost(runs),
        cost_bars(runs),
        reward_curves(histories) if histories else None,
        location_maps(rankings) if rankings else None,
    )
    drawn = {name: figure for name, figure in zip(PICTURES, figures, strict=True) if figure is not None}
    return drawn, [*undrawn, *unread]


def _histories(runs: pd.DataFrame) -> tuple[dict[str, list[dict[str, list[float]]]], list[str]]:
    found: dict[str, list[dict[str, list[float]]]] = defaultdict(list)
    notes = []
    for label, own in in_order(runs):
        for folder in map(Path, own["folder"]):
            try:
                history = _history(folder / "history.csv")
            except DamagedError as error:
                notes.append(f"Run {brief(folder.name)} has no curve, as its {error}.")
                continue
            if history:
                found[label].append(history)
    return found, notes


def _history(path: Path) -> dict[str, list[float]]:
    """The rewards of a search by step, none where there was no search but a training; raises `DamagedError`."""
    if not os.path.lexists(path):
        return {}
    check_file(path)
    try:
        table = pd.read_csv(path)
        if "loss" in table and not {*_CURVES} & {*table}:
            return {}
        columns = table[[name for name in _CURVES if name == _CURVES[0] or name in table]].astype(float)
    except OSError as error:
        raise DamagedError(f"{path.name} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path.name} has no column {_CURVES[0]} of numbers") from error
    if columns.empty or columns.isna().any(axis=None):
        raise DamagedError(f"{path.name} is not whole")
    return {str(name): values.tolist() for name, values in columns.items()}


def _rankings(runs: pd.DataFrame, outputs: Path) -> tuple[dict[str, list[Ranked]], list[str]]:
    """What each kind of ranking has ranked locations by, over tasks and seeds; where there is one kind, by task."""
    found: dict[tuple[str, str], list[Ranked]] = defaultdict(list)
    notes: dict[str, str] = {}
    for _, run in runs.dropna(subset="bank").drop_duplicates("bank").iterrows():
        folder = outputs / "stages" / f"bank-{run['bank']}"
        try:
            if (ranked := ranking(folder)) is not None:
                found[_ranked_by(run, ranked), str(run["task"])].append(ranked)
        except DamagedError as error:
            notes[brief(folder.name)] = str(error)
    return {f"{name} (mean of {len(own)})": own for name, own in _mapped(found).items()}, _unmapped(notes)


def _mapped(found: dict[tuple[str, str], list[Ranked]]) -> dict[str, list[Ranked]]:
    kinds = dict.fromkeys(kind for kind, _ in found)
    if len(kinds) == 1 and 1 < len(found) <= PANELS:
        return {task: own for (_, task), own in sorted(found.items(), key=lambda one: one[0])}
    return {one: [ranked for (kind, _), own in found.items() if kind == one for ranked in own] for one in kinds}


def _ranked_by(run: pd.Series, ranked: Ranked) -> str:
    """Only what has one shape has a mean."""
    told = [str(run[key]) for key in _RANKED_BY if isinstance(run.get(key), str)]
    return ", ".join([*told, "x".join(map(str, ranked[0].shape))])


def _unmapped(notes: dict[str, str]) -> list[str]:
    """One sentence: stages may have been cleared away, all at once."""
    if not notes:
        return []
    return [f"No sensitivity is drawn of {listed(list(notes))}: {next(iter(notes.values()))}."]
