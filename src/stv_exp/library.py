"""The stages as functions for notebooks and scripts; `configure` makes their settings.

What they return is what a run keeps, but nothing is looked up or written: `run` does both.
"""

from __future__ import annotations

from typing import Any

from stv_exp import pipeline
from stv_exp.artefacts.bank import Bank
from stv_exp.config import Config
from stv_exp.data.task import Task
from stv_exp.models import loading
from stv_exp.models.backbone import Backbone
from stv_exp.stages.search import choose
from stv_exp.stages.vector import as_vector
from stv_exp.task_vector import TaskVector


def load_backbone(config: Config) -> Backbone:
    """The frozen model of `config.model`; raises `StvError` where it cannot be loaded."""
    return loading.load_backbone(config.model, config.trainer.accelerator)


def search(backbone: Backbone, task: Task, bank: Bank, config: Config) -> TaskVector:
    """The task vector that `config.method` makes of a bank, by its search on the support where it has one."""
    return as_vector(backbone, bank, choose(backbone, task, bank, config), config)


def run(config: Config) -> dict[str, Any]:
    """A whole job, in `config.outputs` as the command line would leave it; returns its metrics."""
    return pipeline.run(config, [])
