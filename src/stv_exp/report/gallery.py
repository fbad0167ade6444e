"""The pictures that runs have something to show in."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from stv_exp.disk.files import damage, read_json
from stv_exp.errors import StvError
from stv_exp.report.damage import DamagedError, check_file
from stv_exp.report.pictures import accuracy_bars, location_map, reward_curves
from stv_exp.report.tables import in_order
from stv_exp.report.text import listed, one_line

PICTURES = ("accuracy.png", "rewards.png", "sensitivity.png")
_CURVES = ["reward", "reward_random"]
_FILE = "artefact.safetensors"


def gallery(runs: pd.DataFrame, outputs: Path) -> tuple[dict[str, Figure], list[str]]:
    """Figures by the names of their files, and sentences on those that could not be drawn."""
    seeds = {label: own.groupby("seed")["accuracy"].mean().tolist() for label, own in in_order(runs)}
    histories, notes = _histories(runs)
    found = {"accuracy.png": accuracy_bars(seeds)}
    if histories:
        found["rewards.png"] = reward_curves(histories)
    figure, more = _first_map(runs, outputs)
    return (found | {"sensitivity.png": figure} if figure else found), [*notes, *more]


def _histories(runs: pd.DataFrame) -> tuple[dict[str, list[dict[str, list[float]]]], list[str]]:
    found: dict[str, list[dict[str, list[float]]]] = defaultdict(list)
    notes = []
    for label, own in in_order(runs):
        for folder in map(Path, own["folder"]):
            try:
                history = _history(folder / "history.csv")
            except DamagedError as error:
                notes.append(f"Run {one_line(folder.name)} has no curve, as its {error}.")
                continue
            if history:
                found[label].append(history)
    return found, notes


def _history(path: Path) -> dict[str, list[float]]:
    """The rewards of a search by step, none where there was no search; raises `DamagedError`."""
    if not os.path.lexists(path):
        return {}
    check_file(path)
    try:
        columns = pd.read_csv(path)[_CURVES].astype(float)
    except OSError as error:
        raise DamagedError(f"{path.name} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path.name} is no table of {' and '.join(_CURVES)}") from error
    if columns.empty or columns.isna().any(axis=None):
        raise DamagedError(f"{path.name} is not whole")
    return {str(name): values.tolist() for name, values in columns.items()}


def _first_map(runs: pd.DataFrame, outputs: Path) -> tuple[Figure | None, list[str]]:
    """What the locations of the first run that ranked them were ranked by, or why there is no map of it."""
    notes: dict[str, str] = {}
    for _, run in runs.dropna(subset="bank").sort_values(["task", "seed"]).drop_duplicates("bank").iterrows():
        folder = outputs / "stages" / f"bank-{run['bank']}"
        try:
            if (figure := _map(folder, f"{run['label']}, {run['task']}")) is not None:
                return figure, _unmapped(notes)
        except DamagedError as error:
            notes[one_line(folder.name)] = str(error)
    return None, _unmapped(notes)


def _unmapped(notes: dict[str, str]) -> list[str]:
    """One sentence: stages may have been cleared away, all at once."""
    if not notes:
        return []
    return [f"No sensitivity is drawn of {listed(list(notes))}: {next(iter(notes.values()))}."]


def _map(folder: Path, title: str) -> Figure | None:
    """The map of a bank, None where it was ranked by nothing; raises `DamagedError`."""
    from stv_exp.artefacts.bank import Bank

    check_file(folder / _FILE)
    expected = (read_json(folder / "record.json") or {}).get("sha256")
    if isinstance(expected, str) and (found := damage(folder, {_FILE: expected})):
        raise DamagedError(found)
    try:
        bank = Bank.load(folder / _FILE)
        if bank.scores is None:
            return None
        if bank.scores.ndim > 2:
            raise DamagedError(f"{_FILE} ranks no locations")
        return location_map(bank, f"{title}; squares: its {len(bank.locations)} locations")
    except (StvError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:  # tensors of any shape
        raise DamagedError(f"{_FILE} is no bank") from error
