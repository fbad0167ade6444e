"""The end of a command that prints or writes: bad input, and an output or a disk that takes no more, are a sentence."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

from stv_exp.errors import StvError
from stv_exp.interruption import silence
from stv_exp.report.text import brief


def printed(body: Callable[[], object], what: str) -> int:
    """The exit code of `body`, which prints `what` (the report, the status)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may know no ±
    try:
        body()
        sys.stdout.flush()
    except StvError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # of the output itself: `| head`, or a full disk behind `>`
        silence()
        if not isinstance(error, BrokenPipeError):
            reason = brief(error.strerror)
            print(f"Error: {what.capitalize()} cannot be printed ({reason}); print it elsewhere.", file=sys.stderr)
        return 1
    return 0


def written(body: Callable[[], object], where: str) -> int:
    """The exit code of `body`, which reads and writes below one folder, named `where` if an error names no file."""
    try:
        body()
    except StvError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        name, reason = brief(error.filename or where), error.strerror or error
        print(
            f"Error: {name} cannot be written or read ({reason}); check the path, its permissions and room.",
            file=sys.stderr,
        )
        return 1
    return 0


def folder(text: str) -> Path:
    """A folder of the command line; shells leave a quoted `~` as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # nobody of that name
        return Path(text)
