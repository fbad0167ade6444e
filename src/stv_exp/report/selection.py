"""Hyperparameters chosen on validation accuracy: of runs that differ in nothing else, the best one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from stv_exp.errors import StvError
from stv_exp.report.text import in_size


def check_keys(keys: Sequence[str], varying: Collection[str]) -> None:
    """Raise `StvError`, with the keys that vary, for any other."""
    for key in keys:
        if key not in varying:
            choices = f"choose from {', '.join(sorted(varying))}" if varying else "none does, so leave it out"
            raise StvError(f"--select {key} is no setting that varies among the runs of a method; {choices}.")


def best_on_validation(runs: pd.DataFrame, selected: Sequence[str]) -> pd.DataFrame:
    """Of each label, task and seed the run with the best validation accuracy, ties to the first of the settings.

    A new column: `chosen_from`, the number of settings that a row was chosen from. Raises `StvError` where there is a
    choice and a run has no validation accuracy.
    """
    groups = runs.groupby(["label", "task", "seed"], sort=False)
    return pd.concat([_best(own, selected) for _, own in groups], ignore_index=True)


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
            f"The run {own['run'][scores.isna()].iloc[0]} has no validation accuracy to choose by; set "
            "dataset.validation=N, run the sweep again and report that one with --study."
        )
    settings = own[list(keys)].astype(str).drop_duplicates()  # two versions may have run the same
    first = min(own.index, key=lambda i: (-scores[i], [in_size(own.at[i, key]) for key in keys]))
    return own.loc[[first]].assign(chosen_from=len(settings))


def _count(numbers: pd.Series) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low} setting{'s' * (low > 1)}" if low == high else f"{low} to {high} settings"
