"""From settings to a task: each dataset has a module with `load`, found by its name."""

from __future__ import annotations

import importlib

from stv_exp.config import Config
from stv_exp.data.task import Task
from stv_exp.errors import StvError


def load_task(config: Config) -> Task:
    """The task of `config.dataset`, from its loader module; raises `StvError` where that is no loader."""
    name = config.dataset.loader
    try:
        loader = importlib.import_module(name)
    except Exception as error:  # whatever a user's module raises when it is imported
        raise StvError(
            f"dataset.loader={name} is no module ({type(error).__name__}: {error}); check its name."
        ) from error
    task = loader.load(config.dataset) if callable(getattr(loader, "load", None)) else None
    if not isinstance(task, Task):
        raise StvError(f"dataset.loader={name} has no function load(DatasetConfig) -> Task; see README, Add a dataset.")
    return task.held_out(config.dataset.validation)
