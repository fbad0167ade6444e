"""What a process can be asked to do, by `job=...`."""

from __future__ import annotations

import logging

import torch

from stv_exp.config import Config

log = logging.getLogger(__name__)


def start(config: Config, overrides: list[str]) -> float | None:
    """Do the job; returns what a sweeper may optimise: a run's validation score, or its accuracy where it has none."""
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    if config.job == "check_data":
        from stv_exp.check_data import check_data

        check_data(config)
        return None
    if config.job == "pretrain":
        _pretrain(config, overrides)
        return None
    return _run(config, overrides)


def _pretrain(config: Config, overrides: list[str]) -> None:
    from stv_exp.identity import signatures
    from stv_exp.run import Run
    from stv_exp.store import locked
    from stv_exp.testbed.pretrain import pretrain

    job = Run(config.outputs, signatures(config))
    with locked(job.folder), job.recorded(config, overrides):
        pretrain(config)


def _run(config: Config, overrides: list[str]) -> float:
    from stv_exp.pipeline import run

    metrics = run(config, overrides)
    where = f"{config.method.name} on {config.dataset.name}/{config.dataset.task}, seed {config.seed}"
    log.info("%s: accuracy %.3f (n=%d, %.1f s)", where, metrics["accuracy"], metrics["n"], metrics["seconds"]["total"])
    for sentence in metrics["diagnostics"]:
        log.info("  note: %s", sentence)
    return float(metrics.get("validation_accuracy", metrics["accuracy"]))
