"""SIGINT and SIGTERM stop a process where it stands: one sentence, and the exit code of the signal.

What is raised is no `Exception`, so that nobody takes it for a failure of what was just being done. It may still get
lost in a callback that swallows everything, or come out of a half-done import as another error: `check` raises it
again, at the next batch and wherever an error is about to be told.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []


class Interrupted(BaseException):
    """The process was asked to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)  # what it is made of again, behind its way between processes
        self.exit_code = 128 + number

    def __str__(self) -> str:
        name = signal.Signals(self.args[0]).name
        return f"Stopped by {name}; what is finished is kept, and the same command goes on from there."


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the body on SIGINT and SIGTERM; a second signal ends the process at once.

    Within such a body it does nothing more.
    """
    before = {number: signal.signal(number, _stop) for number in _SIGNALS if signal.getsignal(number) is not _stop}
    try:
        yield
    finally:
        if before:
            _received.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def guarded(main: Callable[[], int]) -> int:
    """The exit code of `main`; that of the signal, behind its sentence, where one has stopped it.

    Where nobody reads its output to the end, as behind `| head`, it ends without a word.
    """
    with interruptible():
        try:
            return main()
        except BaseException as error:
            stop = error if isinstance(error, Interrupted) else received()
            if stop is None and isinstance(error, BrokenPipeError) and _unread():
                return 1
            if stop is None:
                raise
            print(stop, file=sys.stderr)
            logging.disable()  # what libraries say at the end of a half-done import
            return stop.exit_code


def received() -> Interrupted | None:
    """The signal that has come, if any."""
    return Interrupted(_received[0]) if _received else None


def _unread() -> bool:
    """Whether it is the output's pipe that broke, of which no more is heard then."""
    watch = select.poll()
    watch.register(sys.stdout, 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0)):
        return False
    silence()
    return True


def silence() -> None:
    """Let what is still to be printed go nowhere: Python flushes once more as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def check() -> None:
    """Raise `Interrupted` where a signal has come and its exception was lost."""
    if stop := received():
        raise stop


def _stop(number: int, _: FrameType | None) -> None:
    _received.append(number)
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_DFL)
    raise Interrupted(number)
