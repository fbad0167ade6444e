"""What a bank's locations were ranked by, and where a vector was inserted, read without torch."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from stv_exp.disk.files import damage, read_json
from stv_exp.report.damage import DamagedError, check_file

_FILE = "artefact.safetensors"


class Ranking(NamedTuple):
    """`scores` `[L, H]`, or `[L]` at sites without heads, NaN in layers that have none; the bank's `locations`."""

    scores: NDArray[np.floating[Any]]
    locations: NDArray[np.integer[Any]]

    @property
    def columns(self) -> list[str | int]:
        """The columns of `rows`."""
        return [*("layer", "head")[: self.scores.ndim], "score", "chosen"]

    def rows(self, chosen: Collection[tuple[int, ...]]) -> list[list[Any]]:
        """One a location, with whether it is among the `chosen`; the highest score first."""
        places = [tuple(map(int, place)) for place in np.argwhere(~np.isnan(self.scores))]
        rows: list[list[Any]] = [[*place, float(self.scores[place]), place in chosen] for place in places]
        return sorted(rows, key=lambda row: -row[-2])


def ranking(folder: Path) -> Ranking | None:
    """Scores `[L, H]` or `[L]` and locations of the bank in `folder`, None where nothing ranked them.

    Raises `DamagedError`.
    """
    check_file(folder / _FILE)
    expected = (read_json(folder / "record.json") or {}).get("sha256")
    if isinstance(expected, str) and (found := damage(folder, {_FILE: expected})):
        raise DamagedError(found)
    try:
        with safe_open(folder / _FILE, framework="numpy") as file:
            return _read(file)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedError(f"{_FILE} is no bank") from error


def _read(file: safe_open) -> Ranking | None:
    fields = json.loads(file.metadata()["Bank"])
    if "scores" in fields and fields["scores"] is None:
        return None
    scores, locations = file.get_tensor("scores"), file.get_tensor("locations")
    _check(scores, locations)
    return Ranking(scores, locations)


def _check(scores: np.ndarray, locations: np.ndarray) -> None:
    """Tensors may be of any shape, where others have written the file."""
    if scores.ndim not in (1, 2) or scores.size == 0 or locations.ndim != 2 or locations.dtype.kind != "i":
        raise DamagedError(f"{_FILE} ranks no locations")
    columns = (0, -1) if scores.ndim == 2 else (0,)
    outside = any((locations[:, c] < 0).any() or (locations[:, c] >= scores.shape[c]).any() for c in columns)
    if locations.shape[1] != scores.ndim or outside:
        raise DamagedError(f"{_FILE} has locations that it does not rank")


def vector_locations(path: Path) -> list[tuple[int, ...]]:
    """Locations of a saved task vector, none where there is no such file or it is another."""
    try:
        with safe_open(path, framework="numpy") as file:
            return sorted(tuple(int(i) for i in place) for place in file.get_tensor("locations"))
    except (OSError, SafetensorError, TypeError):
        return []
