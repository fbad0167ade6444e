"""What a run's locations were ranked by, read from its bank without torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open


@dataclass(frozen=True)
class Ranking:
    """`scores` `[L, H]`, or `[L]` at sites without heads, NaN in layers that have none; the bank's `locations`."""

    scores: NDArray[np.floating[Any]]
    locations: NDArray[np.integer[Any]]

    @classmethod
    def read(cls, bank: Path) -> Ranking | None:
        """That of a saved bank; None where the file is not there or ranks nothing."""
        found = _tensors(bank, "scores", "locations")
        return cls(found["scores"], found["locations"]) if len(found) == 2 else None

    @property
    def columns(self) -> list[str | int]:
        """The columns of `rows`."""
        return [*("layer", "head")[: self.scores.ndim], "score", "chosen"]

    def rows(self, chosen: Collection[tuple[int, ...]]) -> list[list[Any]]:
        """One a location, with whether it is among the `chosen`; the highest score first."""
        places = [tuple(map(int, place)) for place in np.argwhere(~np.isnan(self.scores))]
        rows: list[list[Any]] = [[*place, float(self.scores[place]), place in chosen] for place in places]
        return sorted(rows, key=lambda row: -row[-2])


def vector_locations(path: Path) -> list[tuple[int, ...]]:
    """Locations of a saved task vector, none where there is no such file."""
    found = _tensors(path, "locations")
    return sorted(tuple(int(i) for i in place) for place in found["locations"]) if found else []


def _tensors(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """Those of the tensors that the file has; none where it cannot be read, as stages may be cleared away."""
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in names if name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError):
        return {}
