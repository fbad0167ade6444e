"""What a bank's locations were ranked by, read without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from stv_exp.disk.files import damage, read_json
from stv_exp.report.damage import DamagedError, check_file
from stv_exp.report.pictures.sensitivity import Ranked

_FILE = "artefact.safetensors"


def ranking(folder: Path) -> Ranked | None:
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


def _read(file: safe_open) -> Ranked | None:
    fields = json.loads(file.metadata()["Bank"])
    if "scores" in fields and fields["scores"] is None:
        return None
    scores, locations = file.get_tensor("scores"), file.get_tensor("locations")
    _check(scores, locations)
    return scores, locations


def _check(scores: np.ndarray, locations: np.ndarray) -> None:
    """Tensors may be of any shape, where others have written the file."""
    if scores.ndim not in (1, 2) or scores.size == 0 or locations.ndim != 2 or locations.dtype.kind != "i":
        raise DamagedError(f"{_FILE} ranks no locations")
    columns = (0, -1) if scores.ndim == 2 else (0,)
    outside = any((locations[:, c] < 0).any() or (locations[:, c] >= scores.shape[c]).any() for c in columns)
    if locations.shape[1] != scores.ndim or outside:
        raise DamagedError(f"{_FILE} has locations that it does not rank")
