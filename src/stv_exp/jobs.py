"""What a process can be asked to do, by `job=...`."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from stv_exp import studies
from stv_exp.config import Config
from stv_exp.disk.locks import locked
from stv_exp.disk.run import Run
from stv_exp.identity import signatures
from stv_exp.progress import placed
from stv_exp.tracking.sent import is_sent

log = logging.getLogger(__name__)
_noted: set[str] = set()


def check(config: Config) -> None:
    """Raise `StvError` for what can be told before the job starts, without data and weights: a sweep asks first."""
    if config.job == "run" and run_of(config).metrics is None:
        from stv_exp.pipeline import check as check_run

        check_run(config)


def run_of(config: Config) -> Run:
    """The run on disk, there or not."""
    return Run(config.outputs, signatures(config))


def start(config: Config, overrides: list[str]) -> float | None:
    """Do the job; returns what a sweeper may optimise: a run's validation score, or its accuracy where it has none."""
    if config.job == "check_data":
        from stv_exp.check_data import check_data

        check_data(config)
        return None
    if config.job == "pretrain":
        _pretrain(config, overrides)
        return None
    return _run(config, overrides)


def _pretrain(config: Config, overrides: list[str]) -> None:
    from stv_exp.testbed.pretrain import pretrain

    _set_threads(config)
    job = run_of(config)
    with locked(Path(config.pretrain.folder)), locked(job.folder), job.recorded(config, overrides):
        pretrain(config)


def look_up(config: Config) -> dict[str, Any] | None:
    """The metrics of a job that is done, told in a line; None for one that is not, and for one without metrics."""
    job = run_of(config)
    if config.job != "run" or (metrics := job.metrics) is None:
        return None
    _tell(studies.entry(config), metrics, f"run {job.signature} is done; its results are in {job.folder}")
    _show(config, job.folder)
    return metrics


def _run(config: Config, overrides: list[str]) -> float:
    metrics = look_up(config)
    if metrics is None:
        metrics = _made(config, overrides)
        _tell(studies.entry(config), metrics, f"{metrics['seconds']['total']:.1f} s")
    return float(metrics.get("validation_accuracy", metrics["accuracy"]))


def _tell(name: object, metrics: dict[str, Any], how: str) -> None:
    log.info("%s: accuracy %.3f (n=%d, %s)", name, metrics["accuracy"], metrics["n"], how)
    for sentence in metrics["diagnostics"]:
        _note(re.sub(r"[-+\d.]+", "", sentence), sentence)


def _note(kind: str, sentence: str) -> None:
    """Say a note once a process, whatever its numbers: in a sweep it may apply to every job."""
    if kind not in _noted:
        log.info("  note: %s", sentence)
    _noted.add(kind)


def _show(config: Config, folder: Path) -> None:
    """A run that is looked up may have been made without W&B: it is sent with `tracker.publish`, else that is said."""
    if config.tracker.name != "wandb" or is_sent(folder, config.tracker):
        return
    if not config.tracker.publish:
        _note("not in W&B", "runs that are looked up and not in W&B yet are sent there by tracker.publish=true.")
        return
    from stv_exp.publish.publication import send
    from stv_exp.tracking.exhibit import Exhibit
    from stv_exp.tracking.tracker import warn

    try:
        send(Exhibit.read(folder, config.study), config.tracker)
    except Exception as error:  # whatever W&B raises
        warn(config.tracker.name, error)


def _made(config: Config, overrides: list[str]) -> dict[str, Any]:
    """Only here anything heavy is imported: what is done is read from disk."""
    from stv_exp.pipeline import run

    _set_threads(config)
    with placed(str(studies.entry(config)), run_of(config).folder):
        return run(config, overrides)


def _set_threads(config: Config) -> None:
    import torch

    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
