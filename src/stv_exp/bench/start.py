"""Seconds until the command line answers: what a user waits for before anything is computed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf

from stv_exp import pipeline
from stv_exp.bench.subject import Subject
from stv_exp.bench.timing import Figure, Measurement, in_turns
from stv_exp.config import Config

JOB = ("stv_exp", "+experiment=smoke", "tracker=none")


def measure(subject: Subject, rounds: int) -> Measurement:
    """Seconds of `--help`, of looking up a job that is done and of a report on it, each in a new process.

    And of the look-up itself, in a process that has done one before: what is left of it in a sweep once Hydra has
    composed the job. None depends on the subject.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = partial(_run, Path(folder))
        run(*JOB)  # which also reads all files that the others read, but the report's
        shell: dict[str, Callable[[], object]] = {
            "help": partial(run, "stv_exp", "--help"),
            "lookup": partial(run, *JOB),
            "report": partial(run, "stv_exp.report"),
        }
        seconds = in_turns(shell, max(1, rounds // 5), warm_up=rounds > 1)
        seconds |= in_turns({"sweep_lookup": partial(pipeline.run, _finished(Path(folder)), [])}, rounds)
    return Measurement({f"{name}_seconds": Figure(value) for name, value in seconds.items()}, seconds)


def _run(folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", *words], cwd=folder, check=True, capture_output=True)


def _finished(folder: Path) -> Config:
    """The settings of the job that is done there."""
    (kept,) = folder.glob("outputs/runs/*/config.yaml")
    found = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(kept), {"outputs": str(folder / "outputs")})
    return cast(Config, OmegaConf.to_object(found))
