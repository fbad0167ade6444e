"""Hyperparameters chosen on validation accuracy: of runs that differ in nothing else, the best one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from stv_exp.errors import StvError

# A manifest keeps some keys of the command line by the stage that reads them (see `identity.settings`).
_KEYS = {
    "bank.where": "method.where",
    "policy.learned": "method.where",
    "bank.sensitivity": "method.sensitivity",
    "bank.k": "method.k",
    "bank.m": "method.m",
    "bank.mode": "insertion.mode",
    "policy.how": "method.how",
    "policy.identity": "bank.identity",
    "policy.when": "insertion.when",
    "scan.demonstrations": "demonstrations.choice",
    "method.demonstrations": "demonstrations.choice",
}


def key_of(name: str) -> str:
    """The key, on the command line, of a setting in a run's manifest."""
    return _KEYS.get(name, name)


def recorded_names(keys: Sequence[str], varying: Collection[str]) -> dict[str, list[str]]:
    """By key, the varying settings that it stands for; raises `StvError`, with the keys that vary, for any other."""
    known = sorted({key_of(name) for name in varying})
    for key in keys:
        if key not in known:
            choices = f"choose from {', '.join(known)}" if known else "none does, so leave it out"
            raise StvError(f"--select {key} is no setting that varies among the runs of a method; {choices}.")
    return {key: [name for name in sorted(varying) if key_of(name) == key] for key in keys}


def best_on_validation(
    runs: pd.DataFrame, settings: Sequence[Mapping[str, Any]], selected: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Of each label, task and seed the run with the best validation accuracy, ties to the first of the settings.

    New columns: each selected key's value, and `chosen_from`, the number of settings that a row was chosen from. Raises
    `StvError` where there is a choice and a run has no validation accuracy.
    """
    values = {key: [_value(s, names) for s in settings] for key, names in selected.items()}
    runs = runs.assign(**{key: pd.Series(own, runs.index, dtype=object) for key, own in values.items()})
    groups = runs.groupby(["label", "task", "seed"], sort=False)
    return pd.concat([_best(own, list(selected)) for _, own in groups], ignore_index=True)


def described(chosen: pd.DataFrame, keys: Sequence[str]) -> str:
    """The sentence that says how the runs were chosen: on what, which keys, and from how many settings each."""
    counts = [f"{label} from {_count(own['chosen_from'])}" for label, own in chosen.groupby("label")]
    return (
        f"Chosen on validation accuracy (by dataset.metric), for each task and seed: {', '.join(keys)}; "
        f"{', '.join(counts)}. Times and candidate evaluations are those of the chosen runs alone."
    )


def _best(own: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    scores = own["validation_accuracy"]
    if len(own) > 1 and scores.isna().any():
        raise StvError(
            f"The run {own['signature'][scores.isna()].iloc[0]} has no validation accuracy to choose by; set "
            "dataset.validation=N, run the sweep again and report that one with --study."
        )
    settings = own[list(keys)].astype(str).drop_duplicates()  # two versions may have run the same
    first = min(own.index, key=lambda i: (-scores[i], [_order(own.at[i, key]) for key in keys]))
    return own.loc[[first]].assign(chosen_from=len(settings))


def _value(settings: Mapping[str, Any], names: Sequence[str]) -> object:
    """The first of the names that the run has; methods keep a key where they read it."""
    return next((settings[name] for name in names if settings.get(name) is not None), None)


def _order(value: object) -> tuple[float, str]:
    """Numbers by size, all else behind them by name."""
    return (float(value), "") if isinstance(value, int | float) else (float("inf"), str(value))


def _count(numbers: pd.Series) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low} setting{'s' * (low > 1)}" if low == high else f"{low} to {high} settings"
