"""The command line in forked processes: they share one that has imported everything, which takes most of a command."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

# Imported here for all forks.
from stv_exp import cli
from stv_exp.interruption import guarded
from stv_exp.report.__main__ import main as report

MAINS = {"stv_exp": cli.main, "stv_exp.report": report}
Prepare = Callable[[], None]


@dataclass(frozen=True)
class Ended:
    """How a process has ended: its exit code (negative: the signal that has killed it) and what it has printed."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout + self.stderr


def run(folder: Path, *words: str, module: str = "stv_exp", prepare: Prepare = lambda: None) -> Ended:
    """`python -m module words` in `folder`, from start to end; `prepare` is called first in its process."""
    return start(folder, *words, module=module, prepare=prepare)()


def start(folder: Path, *words: str, module: str = "stv_exp", prepare: Prepare = lambda: None) -> Callable[[], Ended]:
    """Start it; what is returned waits for its end."""
    pipes = [os.pipe() for _ in range(2)]
    if (pid := os.fork()) == 0:
        _child(folder, list(words), module, prepare, [writing for _, writing in pipes])
    texts: dict[int, str] = {}
    readers = [Thread(target=_read, args=(texts, i, reading)) for i, (reading, _) in enumerate(pipes)]
    for (_, writing), reader in zip(pipes, readers, strict=True):
        os.close(writing)
        reader.start()

    def wait() -> Ended:
        for reader in readers:
            reader.join()
        return Ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), texts[0], texts[1])

    return wait


def _read(texts: dict[int, str], i: int, reading: int) -> None:
    with os.fdopen(reading, "rb") as pipe:
        texts[i] = pipe.read().decode(errors="replace")


def _child(folder: Path, words: list[str], module: str, prepare: Prepare, writings: list[int]) -> None:
    code = 1
    try:
        for number, writing in enumerate(writings, start=1):
            os.dup2(writing, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        _as_if_new()
        os.chdir(folder)
        sys.argv = [module, *words]
        prepare()
        code = guarded(MAINS[module])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else bool(error.code)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _as_if_new() -> None:
    """Without what pytest has set."""
    warnings.resetwarnings()
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)
    os.environ.pop("HYDRA_FULL_ERROR", None)
