"""Finds the loader of a dataset: a module with `load(DatasetConfig) -> Task`, and `tasks()` where it has several."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

from stv_exp.config import Config, DatasetConfig, learned_from
from stv_exp.data.task import Task
from stv_exp.errors import StvError


def load_task(config: Config) -> Task:
    """The queries of `config.dataset`, and the support that `config.fit` names, a share of it mislabelled if asked for.

    Raises `StvError` where there is no loader.
    """
    task, source = _loaded(config.dataset), learned_from(config)
    learned = task if source == config.dataset else _loaded(source)
    support = learned.mislabelled(config.dataset.label_noise).support
    return replace(task, support=support).held_out(config.dataset.validation)


def _loaded(config: DatasetConfig) -> Task:
    loader = _module(config.loader)
    task = loader.load(config) if callable(getattr(loader, "load", None)) else None
    if not isinstance(task, Task):
        raise StvError(
            f"dataset.loader={config.loader} has no function load(DatasetConfig) -> Task; see docs/adding.md."
        )
    return task


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
