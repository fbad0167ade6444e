"""What a search saves: the queries after which a task vector is cheaper than the prompts that it replaces."""

from __future__ import annotations

import numpy as np
import pandas as pd

_SAME = ["model", "task", "seed"]


def is_few_shot(runs: pd.DataFrame) -> pd.Series:
    """Which runs are prompting with demonstrations alone."""
    nowhere = _known(runs, "method.where", "") == "none"
    unedited = _known(runs, "method.edit", "none") == "none"  # runs of 0.2 know no edit
    return (runs["method"] == "few_shot") | (nowhere & unedited & (_shots(runs) > 0))


def conditions(runs: pd.DataFrame) -> list[str]:
    """Settings that prompting has to share with what it is compared with: how it is asked, and how many labels hold."""
    return [key for key in map(str, runs) if key == "dataset.label_noise" or key.startswith("dataset.template.")]


def most_shots_first(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of few-shot prompting, those with most demonstrations first, of as many in the order of their labels."""
    few = runs[is_few_shot(runs)]
    few = few.assign(_shots=_shots(few)).sort_values(["_shots", "label"], ascending=[False, True], kind="stable")
    return few.drop(columns="_shots")


def _best_first(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of few-shot prompting by accuracy, of equally good ones those with fewer demonstrations first."""
    few = runs[is_few_shot(runs)]
    return few.assign(shots=_shots(few)).sort_values(["accuracy", "shots"], ascending=[False, True], kind="stable")


def _known(runs: pd.DataFrame, key: str, otherwise: str) -> pd.Series:
    """A setting of each run, or what stands for it where a run has not recorded it."""
    if key not in runs:
        return pd.Series(otherwise, index=runs.index)
    return runs[key].astype(object).where(runs[key].notna(), otherwise)


def _shots(runs: pd.DataFrame) -> pd.Series:
    shots = runs["method.shots"] if "method.shots" in runs else pd.Series(0, index=runs.index)
    return pd.to_numeric(shots, errors="coerce").fillna(0)


def queries_to_pay(runs: pd.DataFrame) -> pd.Series:
    """The number of queries after which a run has taken no more token-forwards, its search included, than prompting.

    The prompting is the best few-shot run of the same model, task, seed and `conditions`: more demonstrations than a
    model can use would make anything pay. NaN without one, for runs that search nothing, and where a query costs no
    less than with the prompt.
    """
    each = runs.assign(each=runs["token_forwards.evaluation"] / runs["n"])
    same = [*_SAME, *conditions(runs)]
    prompting = _best_first(each.dropna(subset="each")).drop_duplicates(same)
    prompted = each[same].merge(prompting[[*same, "each"]], on=same, how="left")["each"].set_axis(runs.index)
    saved, search = prompted - each["each"], runs["search_token_forwards"]
    return np.ceil(search / saved).where((saved > 0) & (search > 0))
