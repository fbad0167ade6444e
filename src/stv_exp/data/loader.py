"""Finds the loader of a dataset: a module with `load(DatasetConfig) -> Task`, and `tasks()` where it has several.

One that says in `READS` which settings of `dataset` it reads is handed no others: see `COMMON`.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from types import ModuleType

from stv_exp.config import Config, DatasetConfig, learned_from
from stv_exp.data.task import Task
from stv_exp.errors import StvError

# What any dataset has, and what others than its loader read.
COMMON = {"name", "loader", "task", "template", "metric", "label_noise"}
COMMON |= {"support", "validation", "eval", "max_new_tokens"}


def load_task(config: Config) -> Task:
    """The queries of `config.dataset`, and the support that `config.fit` names, a share of it mislabelled if asked for.

    Raises `StvError` where there is no loader.
    """
    task, source = _loaded(config.dataset), learned_from(config)
    learned = task if source == config.dataset else _loaded(source)
    support = learned.mislabelled(config.dataset.label_noise).support
    return replace(task, support=support).held_out(config.dataset.validation)


def check_dataset(config: Config) -> None:
    """Raise `StvError`, before data is read, for a dataset or one to learn from that no loader has, knows or reads."""
    for own in (config.dataset, learned_from(config)):
        _loader(own)


def _loaded(config: DatasetConfig) -> Task:
    loader = _loader(config)
    task = loader.load(config) if callable(getattr(loader, "load", None)) else None
    if not isinstance(task, Task):
        raise StvError(
            f"dataset.loader={config.loader} has no function load(DatasetConfig) -> Task; see docs/adding.md."
        )
    return task


def _loader(config: DatasetConfig) -> ModuleType:
    loader = _module(config.loader)
    _check_read(config, getattr(loader, "READS", None))
    if (names := task_names(config.loader)) and config.task not in names:
        raise StvError(f"dataset.task={config.task!r} is unknown; choose one of {', '.join(names)}.")
    return loader


def _check_read(config: DatasetConfig, reads: Collection[str] | None) -> None:
    """Raise `StvError` for a setting that a loader does not read: it would change nothing, and be another run."""
    if reads is None:
        return
    for key, usual in vars(DatasetConfig()).items():
        if key not in COMMON and key not in reads and (value := getattr(config, key)) != usual:
            known = ", ".join(sorted({*COMMON, *reads} - {"name", "loader"}))
            raise StvError(
                f"dataset.{key}={value} is not read by {config.loader}; leave it out (and fit.{key}). Read are {known}."
            )


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
