"""Reads run folders into one table row a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from stv_exp.errors import StvError
from stv_exp.store import read_json

# What tells two variants of one method apart, when it differs between the runs at hand.
_VARIANT_PREFIXES = ("model", "dataset.", "method.", "scan.", "bank.", "policy.", "insertion.")
_NOT_VARIANT = ("method.name", "dataset.name", "dataset.task", "dataset.loader", "policy.cache_bytes")


def load_runs(outputs: Path, study: str | None = None) -> pd.DataFrame:
    """One row for each run that is done; raises `StvError` where there is none.

    Columns: signature, folder, label (method and what varies), task, seed, accuracy, n, seconds,
    location_search_seconds, candidate_evaluations.
    """
    records = [r for r in (_record(folder) for folder in _folders(outputs, study)) if r is not None]
    if not records:
        where = f"the study {study} of {outputs}" if study else str(outputs)
        raise StvError(f"There is no finished run in {where}; run `python -m stv_exp +experiment=quickstart` first.")
    runs = pd.DataFrame([r["row"] for r in records])
    runs["label"] = _labels(runs["method"].tolist(), [r["settings"] for r in records])
    return runs


def unfinished(outputs: Path, study: str | None = None) -> list[str]:
    """A sentence for each run that has failed or not ended."""
    found = []
    for folder in _folders(outputs, study):
        status = read_json(folder / "status.json") or {}
        if status.get("state") in ("failed", "running"):
            found.append(f"{folder.name} is {status['state']}: {status.get('error', 'no end was recorded')}")
    return found


def _folders(outputs: Path, study: str | None) -> Iterator[Path]:
    if study is None:
        yield from sorted(p for p in (outputs / "runs").glob("*") if p.is_dir())
        return
    for entry in sorted((outputs / "sweeps" / study).glob("*.run")):
        yield outputs / "runs" / entry.stem


def _record(folder: Path) -> dict[str, Any] | None:
    metrics, status = read_json(folder / "metrics.json"), read_json(folder / "status.json")
    if metrics is None or status is None or status["state"] != "done":
        return None
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    row = {
        "signature": folder.name,
        "folder": str(folder),
        "method": config["method"]["name"],
        "task": f"{config['dataset']['name']}/{config['dataset']['task']}",
        "seed": config["seed"],
        "accuracy": metrics["accuracy"],
        "n": metrics["n"],
        "seconds": metrics["seconds"]["total"],
        "location_search_seconds": metrics["location_search_seconds"],
        "candidate_evaluations": metrics["candidate_evaluations"],
    }
    return {"row": row, "settings": _flat(config)}


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return {k: v for k, v in flat.items() if k.startswith(_VARIANT_PREFIXES) or prefix}


def _labels(methods: list[str], settings: list[dict[str, Any]]) -> list[str]:
    """The method's name, and every setting that varies among its runs: `stv k=16`."""
    varying: dict[str, list[str]] = {}
    for method in set(methods):
        own = [s for m, s in zip(methods, settings, strict=True) if m == method]
        names = [k for k in own[0] if k.startswith(_VARIANT_PREFIXES) and k not in _NOT_VARIANT]
        varying[method] = [k for k in names if len({str(s.get(k)) for s in own}) > 1]
    return [
        " ".join([m, *(f"{k.rpartition('.')[2]}={s.get(k)}" for k in varying[m])])
        for m, s in zip(methods, settings, strict=True)
    ]
