"""Faults for a forked run: one strikes at the n-th change below `outputs/`, which an audit hook counts."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Timer

from stv_exp.models.backbone import COUNTED
from stv_exp.stages import checkpoint
from tests.forked import run

_CAPABILITY_VERSION = 0x20080522  # of capget(2)
_PASSES_OVER_PERMISSIONS = 0b1110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.link", "os.symlink", "os.truncate")
_OF_THE_ATTEMPT = ("peak_memory_bytes", "peak_memory_by_stage", *COUNTED)
TAKES_ROOM = ("open", "os.mkdir", "os.link", "os.symlink")


@dataclass(frozen=True)
class AtOperation:
    """`strike` at the n-th change below `outputs/` (from 0), or with `again` at every one from there on."""

    n: int
    strike: Callable[[str], None]
    again: bool = False

    def __call__(self) -> None:
        checkpoint.EVERY *= 0  # each step of a search
        root, count = str(Path("outputs").absolute()), [-1]

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if _changes(event, arguments, root):
                count[0] += 1
                if count[0] == self.n or (self.again and count[0] > self.n):
                    self.strike(event)

        sys.addaudithook(hook)


def operations(folder: Path, *words: str) -> int:
    """How many changes below `outputs/` the command makes."""
    counted = folder / "counted"
    counted.touch()
    assert run(folder, *words, prepare=AtOperation(0, partial(_count, counted), again=True)).returncode == 0
    return counted.stat().st_size


def _count(file: Path, _: str) -> None:
    with file.open("a") as opened:
        opened.write("x")


def kill(_: str) -> None:
    """As the kernel kills a process that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def full_disk(event: str) -> None:
    """No room for anything new; removing and renaming still work."""
    if event in TAKES_ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def signalled(number: int, _: str) -> None:
    """The process is sent a signal."""
    os.kill(os.getpid(), number)


def after(seconds: float, number: int) -> None:
    """A signal some time after the start."""
    timer = Timer(seconds, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()


def small_files(n_bytes: int) -> None:
    """No file grows beyond `n_bytes`: writing fails in its middle."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def without_roots_rights() -> None:
    """Permissions hold root back as anybody: the rights to pass over them are given up (Linux)."""
    header, data = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, data) == 0
    data[0] &= ~_PASSES_OVER_PERMISSIONS
    assert libc.capset(header, data) == 0


def differences(folder: Path, other: Path) -> list[str]:
    """What runs below two folders have found that is not the same, times and memory aside."""
    mine, its = results(folder), results(other)
    keys = sorted({*mine, *its})
    return [
        f"{key}: {mine.get(key)!r:.200} is not {its.get(key)!r:.200}" for key in keys if mine.get(key) != its.get(key)
    ]


def results(folder: Path) -> dict[str, object]:
    """What the runs below a folder have found, by run and key; the forwards of attempts that were stopped are left out.

    They count, and an attempt that goes on computes its prefixes anew.
    """
    found: dict[str, object] = {}
    for run_folder in sorted(p for p in (folder / "outputs/runs").iterdir() if p.is_dir()):
        name, status = run_folder.name, json.loads((run_folder / "status.json").read_text())
        metrics = json.loads((run_folder / "metrics.json").read_text())
        kept = {k: v for k, v in metrics.items() if "seconds" not in k and k not in _OF_THE_ATTEMPT}
        found |= {f"{name} state": status["state"]} | {f"{name} {key}": value for key, value in kept.items()}
        for file in ("task_vector.safetensors", "predictions.jsonl"):
            found[f"{name} {file}"] = (run_folder / file).read_bytes()
    return found


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders below `outputs/`."""
    names = (str(p) for p in (folder / "outputs").rglob(".*") if p.suffix not in (".lock", ".holder"))
    return sorted(names)


def _changes(event: str, arguments: tuple[object, ...], root: str) -> bool:
    if event == "open":
        path, _, flags = arguments
        wanted = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    else:
        path, wanted = arguments[0] if arguments else None, event in CHANGES
    return wanted and isinstance(path, str | os.PathLike) and str(Path(path).absolute()).startswith(root)
