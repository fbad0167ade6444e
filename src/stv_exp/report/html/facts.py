"""What was compared, in a few numbers and names."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pandas as pd

from stv_exp.disk.files import read_json
from stv_exp.report.text import listed

_NAMED = {"models": "model.name", "tasks": "task", "methods": "method", "seeds": "seed"}
_MOST = 12


def facts(runs: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Each fact's name, its number and the names behind it."""
    known = {name: sorted(runs[key].dropna().unique().tolist()) for name, key in _NAMED.items() if key in runs}
    told = [(name, str(len(values)), listed(list(map(str, values)), _MOST)) for name, values in known.items()]
    items = runs["n"].sum()
    return [("runs", str(len(runs)), f"{items:,.0f} answers"), *told, ("versions", "", _versions(runs))]


def _versions(runs: pd.DataFrame) -> str:
    """Of the packages that the runs were made with, all that occur."""
    found: dict[str, set[str]] = defaultdict(set)
    for folder in runs["folder"]:
        versions = (read_json(Path(folder) / "manifest.json") or {}).get("versions")
        for package, version in versions.items() if isinstance(versions, dict) else ():
            found[str(package)].add(str(version))
    return ", ".join(f"{package} {' and '.join(sorted(versions))}" for package, versions in found.items()) or "unknown"
