"""SIGINT and SIGTERM stop a process where it stands: one sentence, and the exit code of the signal.

What is raised is no `Exception`, so that nobody takes it for a failure of what was just being done. It may still get
lost in a callback that swallows everything; `check` raises it again, at the next batch.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_received: list[int] = []


class Interrupted(BaseException):
    """The process was asked to stop."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"Stopped by {name}; what is finished is kept, and the same command goes on from there.")
        self.exit_code = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the body on SIGINT and SIGTERM; a second signal ends the process at once."""
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        _received.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def check() -> None:
    """Raise `Interrupted` where a signal has come and its exception was lost."""
    if _received:
        raise Interrupted(_received[0])


def _stop(number: int, _: FrameType | None) -> None:
    _received.append(number)
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_DFL)
    raise Interrupted(number)
