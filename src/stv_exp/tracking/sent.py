"""Which runs are in W&B: `.sent.json` in a run's folder, hidden, as a run's own files are checked by their sums."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from stv_exp.disk.files import read_json, write_json
from stv_exp.tracker_config import TrackerConfig

_FILE = ".sent.json"


def is_sent(folder: Path, settings: TrackerConfig) -> bool:
    """Whether the run in `folder` is where `settings` would send it; an offline run has to be there still."""
    entry = (read_json(folder / _FILE) or {}).get(_place(settings))
    if not isinstance(entry, dict):
        return False
    return settings.mode == "online" or (folder.parents[1] / str(entry.get("folder"))).is_dir()


def note_sent(folder: Path, settings: TrackerConfig, /, **where: str) -> None:
    """Keep that the run has arrived there."""
    entry = {**where, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    write_json(folder / _FILE, (read_json(folder / _FILE) or {}) | {_place(settings): entry})


def _place(settings: TrackerConfig) -> str:
    return f"{settings.mode}:{settings.entity}/{settings.project}"
