"""Seconds until the command line answers: what a user waits for before anything is computed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from stv_exp.bench.subject import Subject
from stv_exp.bench.timing import Figure, Measurement, in_turns

JOB = ("stv_exp", "+experiment=smoke", "tracker=none")
SWEEP = ("stv_exp", "-m", *JOB[1:])
MORE = 20  # jobs of a sweep: what they take must stand out of what a start takes now and then
SAME = "policy.cache_bytes="  # jobs that differ in it have the same result


def measure(subject: Subject, rounds: int) -> Measurement:
    """Seconds of `--help`, of looking up a job that is done and of a report on it, each in a new process.

    And of one more look-up in a sweep, its composition by Hydra included: the difference between sweeps of one job and
    of many that are done, which end with the same table. None depends on the subject.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = partial(_run, Path(folder))
        run(*JOB)  # which also reads all files that the others read
        commands: dict[str, Callable[[], object]] = {
            "help": partial(run, "stv_exp", "--help"),
            "lookup": partial(run, *JOB),
            "report": partial(run, "stv_exp.report"),
            "sweep_of_1": partial(run, *SWEEP, f"{SAME}1"),
            f"sweep_of_{1 + MORE}": partial(run, *SWEEP, SAME + ",".join(map(str, range(1, MORE + 2)))),
        }
        seconds = in_turns(commands, max(1, rounds // 5), warm_up=rounds > 1)
    aims = {"help": None, "lookup": 3.0, "report": 3.0}
    figures = {f"{name}_seconds": Figure(seconds[name], aim, at_least=False) for name, aim in aims.items()}
    more = (seconds[f"sweep_of_{1 + MORE}"] - seconds["sweep_of_1"]) / MORE
    return Measurement({**figures, "sweep_lookup_seconds": Figure(more, 0.1, at_least=False)}, seconds)


def _run(folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", *words], cwd=folder, check=True, capture_output=True)
