"""Runs of the command line in forked processes, each with a fault: they share one process that has imported all.

A fault strikes at the n-th file operation below `outputs/`, which an audit hook counts.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

# Imported here for all forks.
from stv_exp import cli
from stv_exp.interruption import guarded
from stv_exp.report.__main__ import main as report
from stv_exp.stages import checkpoint

NOBODY = 65534
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.link", "os.symlink", "os.truncate")
TAKES_ROOM = ("open", "os.mkdir", "os.link", "os.symlink")
Prepare = Callable[[], None]


@dataclass(frozen=True)
class Ended:
    """How a process has ended: its exit code (negative: the signal that has killed it) and what it has printed."""

    code: int
    text: str


def start(
    folder: Path, words: list[str], prepare: Prepare = lambda: None, main: Callable[[], int] = cli.main
) -> Callable[[], Ended]:
    """Start the command in `folder`; what is returned waits for its end."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(reading)
        _child(folder, words, prepare, main, writing)
    os.close(writing)

    def wait() -> Ended:
        with os.fdopen(reading, "rb") as pipe:
            text = pipe.read().decode(errors="replace")
        return Ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text)

    return wait


def run(folder: Path, words: list[str], prepare: Prepare = lambda: None) -> Ended:
    """The command in `folder`, from start to end."""
    return start(folder, words, prepare)()


def reported(folder: Path, prepare: Prepare = lambda: None) -> Ended:
    """`python -m stv_exp.report` in `folder`."""
    return start(folder, [], prepare, report)()


def _child(folder: Path, words: list[str], prepare: Prepare, main: Callable[[], int], writing: int) -> None:
    code = 99
    try:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        os.chdir(folder)
        sys.argv = ["stv_exp", *words]
        checkpoint.EVERY *= 0  # each step of a search
        os.environ.pop("HYDRA_FULL_ERROR", None)
        prepare()
        code = guarded(main)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        os._exit(code)


def at_operation(n: int, strike: Callable[[str], None], again: bool = False) -> Prepare:
    """`strike` at the n-th change below `outputs/` (from 0), or with `again` at every one from there on."""

    def prepare() -> None:
        root, count = str(Path("outputs").absolute()), [-1]

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if _changes(event, arguments, root):
                count[0] += 1
                if count[0] == n or (again and count[0] > n):
                    strike(event)

        sys.addaudithook(hook)

    return prepare


def operations(folder: Path, words: list[str]) -> int:
    """How many changes below `outputs/` the command makes."""
    counted = folder / "counted"
    counted.touch()

    def count(event: str) -> None:
        with counted.open("a") as file:
            file.write("x")

    assert run(folder, words, at_operation(0, count, again=True)).code == 0
    return len(counted.read_text())


def kill(_: str) -> None:
    """As the kernel kills a process that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def full_disk(event: str) -> None:
    """No room for anything new; removing and renaming still work."""
    if event in TAKES_ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def signalled(number: int) -> Callable[[str], None]:
    """The process is sent a signal."""
    return lambda _: os.kill(os.getpid(), number)


def after(seconds: float, number: int) -> Prepare:
    """A signal some time after the start."""

    def prepare() -> None:
        timer = Timer(seconds, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    return prepare


def small_files(n_bytes: int) -> Prepare:
    """No file grows beyond `n_bytes`: writing fails in its middle."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def as_nobody() -> None:
    """Without the rights of root, whom no permission holds back."""
    if os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def differences(folder: Path, other: Path) -> list[str]:
    """What runs below two folders have found that is not the same, times and memory aside."""
    mine, its = results(folder), results(other)
    keys = sorted({*mine, *its})
    return [
        f"{key}: {mine.get(key)!r:.200} is not {its.get(key)!r:.200}" for key in keys if mine.get(key) != its.get(key)
    ]


def results(folder: Path) -> dict[str, object]:
    """What the runs below a folder have found, by run and key."""
    found: dict[str, object] = {}
    for run_folder in sorted(p for p in (folder / "outputs/runs").iterdir() if p.is_dir()):
        name, status = run_folder.name, json.loads((run_folder / "status.json").read_text())
        metrics = json.loads((run_folder / "metrics.json").read_text())
        kept = {k: v for k, v in metrics.items() if "seconds" not in k and k != "peak_memory_bytes"}
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
