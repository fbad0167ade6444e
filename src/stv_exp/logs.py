"""The log file of a run: a view, like a tracker; where it cannot be written, the run goes on without."""

from __future__ import annotations

import logging
from contextlib import suppress


class RunLog(logging.FileHandler):
    """Opens its file at the first line, so that a finished run in a read-only folder can be looked up."""

    def __init__(self, filename: str) -> None:
        super().__init__(filename, encoding="utf-8", delay=True)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def close(self) -> None:
        with suppress(OSError):  # flushes what a full disk has not taken
            super().close()
