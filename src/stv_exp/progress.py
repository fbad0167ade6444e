"""How far a job is: a bar on a terminal, a line now and then in its log, and a file for `python -m stv_exp.status`."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from stv_exp.disk.files import write_json
from stv_exp.logs import RunLog

log = logging.getLogger(__name__)
LINE, FILE = 30.0, 2.0  # seconds between two lines of a log, and between two states of the file
NAME = ".progress.json"


@dataclass
class Place:
    """Which job this process is at, and the folder that its progress is written to."""

    title: str = ""
    folder: Path | None = None


_place = Place()


@contextmanager
def placed(title: str, folder: Path) -> Iterator[None]:
    """Report the stages of the body as those of a job."""
    before = (_place.title, _place.folder)
    _place.title, _place.folder = title, folder
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / NAME).unlink(missing_ok=True)
        _place.title, _place.folder = before


class Meter:
    """Counts the items of a stage, from 0 within a `with`."""

    def __init__(self, stage: str, total: int, done: int = 0, bar: bool = True) -> None:
        self.stage = stage
        self.total = total
        self.done = done
        self._wants_bar = bar and sys.stderr.isatty()
        self._bar: Progress | None = None

    def begin(self, done: int) -> None:
        """Start the clock, with `done` items behind it."""
        self.done = self._first = done
        self._started = self._told = self._kept = time.monotonic()
        self._bar = _bar(self._title(), self.total, done) if self._wants_bar else None

    def __enter__(self) -> Meter:
        self.begin(0)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self, n: int = 1) -> None:
        """Count `n` items more and tell it where it is time to."""
        self.done += n
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done)
        now = time.monotonic()
        if now - self._told >= LINE and self.done < self.total:
            self._told = now
            self._tell()
        if _place.folder is not None and now - self._kept >= FILE:
            self._kept = now
            self._keep(_place.folder)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _seconds_left(self) -> float:
        """At the pace so far."""
        return (time.monotonic() - self._started) / max(self.done - self._first, 1) * (self.total - self.done)

    def _title(self) -> str:
        return f"{_place.title} - {self.stage}" if _place.title else self.stage

    def _tell(self) -> None:
        line = f"{self._title()} {self.done}/{self.total}, {left(self._seconds_left())}"
        if self._bar is None:
            log.info("%s", line)
            return
        record = log.makeRecord(log.name, logging.INFO, __file__, 0, line, (), None)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, RunLog):  # the terminal has its bar
                handler.handle(record)

    def _keep(self, folder: Path) -> None:
        state = {"stage": self.stage, "done": self.done, "total": self.total, "seconds_left": self._seconds_left()}
        with suppress(OSError):  # a view: the disk may be full
            write_json(folder / NAME, state | {"at": datetime.now(UTC).isoformat()})


def left(seconds: float) -> str:
    """How long something will take, in words."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s left"
    return f"{round(seconds / 60)} min left" if seconds < 5400 else f"{seconds / 3600:.1f} h left"


class _Left(ProgressColumn):
    def render(self, task: Task) -> Text:
        remaining = task.time_remaining
        return Text("" if remaining is None else left(remaining))


def _bar(title: str, total: int, done: int) -> Progress:
    """A bar that is gone when the stage is done."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        TextColumn("{task.completed}/{task.total}"),
    )
    bar = Progress(*columns, _Left(), console=Console(stderr=True), transient=True)
    bar.add_task(title, total=total, completed=done)
    bar.start()
    return bar
