"""The stages as functions for notebooks and scripts; `configure` makes their settings.

What they return is what a run keeps, but nothing is looked up or written: `run` does both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stv_exp import pipeline
from stv_exp.artefacts.bank import Bank
from stv_exp.artefacts.scan import Scan
from stv_exp.config import Config
from stv_exp.data.task import Task
from stv_exp.methods.method import Method
from stv_exp.models import loading
from stv_exp.models.backbone import Backbone
from stv_exp.stages import bank as banks
from stv_exp.stages import budget, reading, train
from stv_exp.stages.effects import measure
from stv_exp.stages.evaluate import Found
from stv_exp.stages.scan import scan
from stv_exp.stages.search import choose
from stv_exp.stages.vector import as_vector
from stv_exp.task_vector import TaskVector


def load_backbone(config: Config) -> Backbone:
    """The frozen model of `config.model`; raises `StvError` where it cannot be loaded."""
    return loading.load_backbone(config.model, config.trainer.accelerator)


def build_bank(scan: Scan, config: Config, backbone: Backbone | None = None, task: Task | None = None) -> Bank:
    """The locations and candidates of `config.method`.

    The model is needed where candidates move to another site, and model and task where locations are found by asking;
    raises `StvError` where they are not handed over.
    """
    if Method.of(config).where.asks and backbone and task:
        scan = replace(scan, effects=measure(backbone, task, scan, config).scores)
    return banks.build_bank(scan, config, backbone)


def search(backbone: Backbone, task: Task, bank: Bank, config: Config) -> TaskVector:
    """The task vector that `config.method` makes of a bank, by its search on the support where it has one."""
    return as_vector(backbone, bank, choose(backbone, task, bank, config), config)


def fit(backbone: Backbone, task: Task, config: Config) -> Found | None:
    """What `config.method` makes of the support, whichever method it is, for `evaluate`.

    A task vector, a trained edit or a classifier's classes; None for methods that prompt. Raises `StvError` where the
    task does not hold what the method needs, or `config.budget` does not pay for it.
    """
    pipeline.check_task(task, config)
    method, before = Method.of(config), backbone.token_forwards
    if method.trains:
        return train.train(backbone, task, config)
    if method.classifies:
        readings = reading.read(backbone, task, config)
        budget.check(config, backbone.token_forwards - before)
        return reading.learned(readings, config)
    if not method.inserts:
        return None
    bank = build_bank(scan(backbone, task, config), config, backbone, task)
    spent = backbone.token_forwards - before
    budget.check(config, spent)
    chosen = choose(backbone, task, bank, config, spent=spent)
    return as_vector(backbone, bank, chosen, config)


def run(config: Config) -> dict[str, Any]:
    """A whole job, in `config.outputs` as the command line would leave it; returns its metrics."""
    return pipeline.run(config, [])
