"""Runs that have not ended well: which go on, which were killed, which failed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from stv_exp.disk.files import read_json
from stv_exp.disk.locks import is_held, process
from stv_exp.progress import NAME
from stv_exp.report.damage import DamagedError, file_text, json_object
from stv_exp.report.text import brief

_ALIVE = timedelta(minutes=5)  # since a job of another machine has told how far it is
STATES = ("running", "done", "interrupted", "failed")


def read_status(folder: Path) -> dict[str, Any]:
    """`status.json`; raises `DamagedError` where it is not what a run writes."""
    status = json_object(file_text(folder / "status.json"), "status.json")
    if not isinstance(state := status.get("state"), str) or state not in STATES:
        raise DamagedError("status.json holds no known state")
    return status


def unfinished(folder: Path, status: Mapping[str, Any]) -> str | None:
    """The sentence on a run that is not done, None for one that is."""
    name, state = f"Run {brief(folder.name)}", status["state"]
    if state == "failed":
        return f"{name} is failed: {brief(status.get('error', 'no error was recorded'))}"
    if state == "done":
        return None
    if is_alive(folder, status):
        return f"{name} {running(status)}."
    how = "was killed" if state == "running" else f"was interrupted ({brief(status.get('error', 'no reason'))})"
    return f"{name} {how}: the same command goes on from there."


def is_alive(folder: Path, status: Mapping[str, Any]) -> bool:
    """Whether a run goes on: its lock is held, or it has just told where locks do not (another machine, no access)."""
    if held := is_held(folder):
        return True
    unsure = held is None or status.get("host") != process()["host"]
    return unsure and status["state"] == "running" and _is_fresh(read_json(folder / NAME) or {})


def _is_fresh(progress: Mapping[str, Any]) -> bool:
    try:
        return datetime.now(UTC) - datetime.fromisoformat(str(progress.get("at"))) < _ALIVE
    except (ValueError, TypeError):
        return False


def running(status: Mapping[str, Any]) -> str:
    """Who makes a run, as far as that is recorded."""
    known = {key: brief(status[key], 60) for key in ("pid", "host", "since") if status.get(key)}
    if len(known) < 3:
        return "is running"
    return "is running (process {pid} on host {host}, since {since})".format_map(known)
