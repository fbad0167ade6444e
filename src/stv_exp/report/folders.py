"""The run folders that a report is over: all of an outputs folder, or those of a study."""

from __future__ import annotations

from pathlib import Path

from stv_exp.disk.study import Study
from stv_exp.errors import StvError
from stv_exp.report.text import brief, listed


def run_folders(outputs: Path, study: str | None, notes: list[str]) -> list[Path]:
    """The folders, in the order of their names; `notes` gains a sentence on what is none.

    Raises `StvError` where a folder cannot be looked into.
    """
    entries(outputs)
    there = entries(outputs / "runs")
    if study is None:
        notes += [f"{brief(path)} is no run's folder: it is left out." for path in there if not path.is_dir()]
        return [path for path in there if path.is_dir()]
    entries(Study(outputs, study).folder)
    names = {path.name for path in there if path.is_dir()}
    runs = list(Study(outputs, study).runs())
    if absent := [brief(path.name) for path in runs if path.name not in names]:
        notes.append(f"{len(absent)} of {len(runs)} runs of the study have no folder yet: {listed(absent)}.")
    return [path for path in runs if path.name in names]


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, without what is hidden (locks, half-written files); nothing where there is none."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StvError(f"{brief(folder)} cannot be read ({reason}); check the path and its permissions.") from error


def nothing(outputs: Path, study: str | None) -> StvError:
    where = brief(outputs if study is None else f"the study {study} of {outputs}")
    return StvError(f"There is no finished run in {where}; run `python -m stv_exp +experiment=quickstart` first.")
