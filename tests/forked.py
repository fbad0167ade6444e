"""The command line in forked processes: they come from one that has imported everything, which takes most of a command.

That one has computed nothing: a process that has used several threads must not fork.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

MAINS = {
    "stv_exp": "stv_exp.__main__",
    "stv_exp.report": "stv_exp.report.__main__",
    "stv_exp.publish": "stv_exp.publish.__main__",
    "stv_exp.convert": "stv_exp.convert",
    "stv_exp.figures": "stv_exp.figures",
    "stv_exp.keep": "stv_exp.keep",
}
Prepare = Callable[[], None]  # which can be pickled


@dataclass(frozen=True)
class Ended:
    """How a process has ended: its exit code (negative: the signal that has killed it) and what it has printed."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout + self.stderr


def run(folder: Path, *words: str, module: str = "stv_exp", prepare: Prepare | None = None) -> Ended:
    """`python -m module words` in `folder`, from start to end; `prepare` is called first in its process."""
    return start(folder, *words, module=module, prepare=prepare)()


def start(folder: Path, *words: str, module: str = "stv_exp", prepare: Prepare | None = None) -> Callable[[], Ended]:
    """Start it; what is returned waits for its end."""
    pipes = [_context().Pipe(duplex=False) for _ in range(2)]
    arguments = (folder, [module, *words], prepare, dict(os.environ), [writing for _, writing in pipes])
    process = _context().Process(target=_child, args=arguments)
    process.start()
    texts: dict[int, str] = {}
    readers = [Thread(target=_read, args=(texts, i, reading)) for i, (reading, _) in enumerate(pipes)]
    for (_, writing), reader in zip(pipes, readers, strict=True):
        writing.close()
        reader.start()

    def wait() -> Ended:
        for reader in readers:
            reader.join()
        process.join()
        return Ended(process.exitcode or 0, texts[0], texts[1])

    return wait


@cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.warm"])
    return context


def _read(texts: dict[int, str], i: int, reading: Connection) -> None:
    with os.fdopen(os.dup(reading.fileno()), "rb") as pipe:
        texts[i] = pipe.read().decode(errors="replace")
    reading.close()


def _child(
    folder: Path, words: list[str], prepare: Prepare | None, environment: dict[str, str], outputs: list[Connection]
) -> None:
    code = 1
    try:
        for number, output in enumerate(outputs, start=1):
            os.dup2(output.fileno(), number)
            output.close()
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        _as_if_new(folder, words, environment)
        if prepare is not None:
            prepare()
        code = _script(words[1]) if words[0] == "-c" else _guarded(words[0])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else bool(error.code)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def script(folder: Path, code: str) -> Ended:
    """`python -c code` in `folder`."""
    return start(folder, code, module="-c")()


def _script(code: str) -> int:
    exec(compile(code, "<script>", "exec"), {"__name__": "__main__"})
    return 0


def _guarded(module: str) -> int:
    from stv_exp.interruption import guarded

    return guarded(import_module(MAINS[module]).main)


def _as_if_new(folder: Path, words: list[str], environment: dict[str, str]) -> None:
    """As if a shell had started it; warnings as Python shows them to users."""
    os.environ.clear()
    os.environ.update(environment)
    os.environ.pop("HYDRA_FULL_ERROR", None)
    warnings.resetwarnings()
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)
    os.chdir(folder)
    sys.argv = words
