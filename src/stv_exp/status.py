"""`python -m stv_exp.status [outputs] [--study NAME]`: what is done, running, failed and left, on any machine.

It reads the disk alone, so it can look at the outputs of jobs that run elsewhere on a shared file system.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stv_exp.disk.files import damaged, read_json
from stv_exp.disk.locks import is_held
from stv_exp.disk.study import Entry, Study
from stv_exp.errors import StvError
from stv_exp.interruption import guarded
from stv_exp.progress import NAME, left
from stv_exp.report.damage import DamagedError
from stv_exp.report.folders import entries
from stv_exp.report.printing import folder, printed
from stv_exp.report.screen import print_line
from stv_exp.report.states import is_alive, read_status, running
from stv_exp.report.text import brief

_ORDER = ("running", "waiting", "failed", "damaged", "interrupted", "killed", "left", "done")
_MOST = 20  # jobs that are listed of those which have not begun


@dataclass(frozen=True)
class Job:
    """One run as it stands: its state, what it is called and what there is to say of it."""

    state: str
    title: str
    note: str = ""


def main() -> int:
    """Entry point: the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stv_exp.status", description=__doc__)
    parser.add_argument("outputs", nargs="?", default="outputs", type=folder, help="outputs folder (default: outputs)")
    parser.add_argument("--study", help="only the jobs of this study")
    given = parser.parse_args()
    return printed(lambda: show(given.outputs, given.study), "the status")


def show(outputs: Path, only: str | None = None) -> None:
    """Print the studies of an outputs folder, or one of them; raises `StvError` where there is nothing to see."""
    for name, jobs in studies(outputs, only).items():
        _show(name, jobs)


def studies(outputs: Path, only: str | None = None) -> dict[str, list[Job]]:
    """The jobs of each study, and under an empty name the runs that are in none.

    Raises `StvError` where there is nothing to see.
    """
    names = [only] if only is not None else [path.name for path in entries(outputs / "sweeps") if path.is_dir()]
    found, seen = dict[str, list[Job]](), set[str]()
    for name in names:
        study = Study(outputs, name)
        runs = list(study.runs())
        seen |= {run.name for run in runs}
        if jobs := [job_of(run, study.entry(run.name)) for run in runs]:
            found[name] = jobs
    if only is None:
        loose = [run for run in entries(outputs / "runs") if run.is_dir() and run.name not in seen]
        if jobs := [job_of(run, Entry(run.name)) for run in loose]:
            found[""] = jobs
    if not found:
        where = brief(outputs if only is None else f"the study {only} of {outputs}")
        raise StvError(f"There is no job in {where}; check the folder, or run `python -m stv_exp` first.")
    return found


def job_of(folder: Path, entry: Entry) -> Job:
    """How a run stands."""
    title = f"{entry.title or folder.name}"
    if not folder.is_dir() or not (folder / "status.json").exists():
        return Job("waiting" if is_held(folder) else "left", title)
    try:
        status = read_status(folder)
    except DamagedError as error:
        return Job("damaged", title, str(error))
    if status["state"] == "done":
        found = damaged(folder, status) if "files" in status else None
        return Job("damaged", title, brief(found)) if found else Job("done", title)
    if status["state"] == "running":
        return _begun(folder, title, status)
    return Job(status["state"], title, brief(status.get("error", "no reason was recorded")))


def _begun(folder: Path, title: str, status: dict[str, Any]) -> Job:
    """A job that has begun: it goes on, or its process is gone."""
    if is_alive(folder, status):
        progress = read_json(folder / NAME) or {}
        return Job("running", title, "; ".join(text for text in (_far(progress), running(status)) if text))
    return Job("killed", title, "the same command goes on from there")


def _far(progress: dict[str, Any]) -> str:
    try:
        how = f"{brief(progress['stage'], 20)} {int(progress['done'])}/{int(progress['total'])}"
        return f"{how}, {left(float(progress['seconds_left']))}"
    except (KeyError, TypeError, ValueError, OverflowError):
        return ""


def _show(name: str, jobs: list[Job]) -> None:
    counts = {state: sum(job.state == state for job in jobs) for state in _ORDER}
    told = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    print_line(f"{name or 'in no study'}: {len(jobs)} jobs: {told}")
    for line in _lines(jobs):
        print_line(f"  {line}")


def _lines(jobs: list[Job]) -> Iterator[str]:
    """A line each for what one may want to act on; those that have not begun are listed up to a number."""
    for state in _ORDER[:-2]:
        for job in jobs:
            if job.state == state:
                yield f"{state:<11} {job.title}{': ' * bool(job.note)}{job.note}"
    unbegun = [job.title for job in jobs if job.state == "left"]
    for title in unbegun[:_MOST]:
        yield f"{'left':<11} {title}"
    if len(unbegun) > _MOST:
        yield f"{'left':<11} and {len(unbegun) - _MOST} more"


if __name__ == "__main__":
    sys.exit(guarded(main))
