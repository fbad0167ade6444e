"""Finds the loader of a dataset: a module with `load(DatasetConfig) -> Task`, and `tasks()` where it has several."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

from stv_exp.config import Config
from stv_exp.data.task import Task
from stv_exp.errors import StvError


def load_task(config: Config) -> Task:
    """The task of `config.dataset`, from its loader module; raises `StvError` where that is no loader."""
    name = config.dataset.loader
    loader = _module(name)
    task = loader.load(config.dataset) if callable(getattr(loader, "load", None)) else None
    if not isinstance(task, Task):
        raise StvError(f"dataset.loader={name} has no function load(DatasetConfig) -> Task; see README, Add a dataset.")
    return task.held_out(config.dataset.validation)


def task_names(loader: str) -> Sequence[str]:
    """What `dataset.task` may be with a loader module; empty where that is up to the data, or there is one task."""
    tasks = getattr(_module(loader), "tasks", None)
    return tuple(tasks()) if callable(tasks) else ()


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a user's module raises when it is imported
        raise StvError(
            f"dataset.loader={name} is no module ({type(error).__name__}: {error}); check its name."
        ) from error
