"""One process at a time works on a folder; the others wait, and say for whom.

The lock is the operating system's: it ends with its process, however that ends. So it also tells a live run from one
that was killed.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from stv_exp.disk.files import read_json, remove_temporary

log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the (hidden) lock file beside `folder`, and remove what dead processes have left there half-written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder)
    _acquire(lock, folder)
    try:
        remove_temporary(folder)
        _holder(folder).write_text(json.dumps(process()))
        yield
    finally:
        with suppress(OSError):
            _holder(folder).unlink(missing_ok=True)
        lock.release()


def process() -> dict[str, object]:
    """Who holds a lock, for others to read: host, pid and the time."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now().isoformat(" ", "seconds")}


def is_held(folder: Path) -> bool | None:
    """Whether a living process holds the lock of `folder`; None where it can only be read, so that nobody can tell."""
    if not _path(folder).exists():
        return False
    try:
        with _lock(folder).acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:
        return None


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        holder = dict.fromkeys(process(), "?") | (read_json(_holder(folder)) or {})
        who = "process {pid} on {host}, since {since}".format_map(holder)
        log.info("Waiting for %s, which is being made by %s", folder.name, who)
        lock.acquire(poll_interval=0.1)


def _lock(folder: Path) -> FileLock:
    return FileLock(_path(folder))


def _path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _holder(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.holder")
