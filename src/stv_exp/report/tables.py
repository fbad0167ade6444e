"""The tables of a report: by method, by task, and each method against one of them."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from stv_exp.errors import StvError
from stv_exp.statistics import compare, interval

HEADERS = ["method", "accuracy", "95%", "tasks", "seeds", "location search (s)", "all stages (s)"]
HEADERS += ["candidate evaluations", "token-forwards"]
PAIRED_HEADERS = ["method", "against", "items", "difference", "95%", "p"]


@dataclass(frozen=True)
class Table:
    """One table; `name` is that of its files."""

    name: str
    headers: list[str]
    rows: list[list[str]]


def summary(runs: pd.DataFrame, scores: pd.DataFrame) -> list[list[str]]:
    """One row a method: mean over tasks, then mean and standard deviation over seeds; times are means a run.

    The 95% interval is over eval items, each with its mean over seeds: answering the same item again is no new item.
    """
    rows = []
    for label, own in in_order(runs):
        by_seed = own.groupby("seed")["accuracy"].mean()
        items = scores[scores["label"] == label].groupby(["task", "id"])["score"].mean()
        search = own["location_search_seconds"].mean()
        rows.append(
            [
                label,
                _mean_and_deviation(by_seed),
                _range(*interval(items.tolist())),
                str(own["task"].nunique()),
                str(len(by_seed)),
                "-" if pd.isna(search) else f"{search:.2f}",
                f"{own['seconds'].mean():.2f}",
                f"{own['candidate_evaluations'].mean():.0f}",
                "-" if pd.isna(tokens := own["search_token_forwards"].mean()) else f"{tokens:.0f}",
            ]
        )
    return rows


def pairwise(runs: pd.DataFrame, scores: pd.DataFrame, against: str | None = None) -> list[list[str]]:
    """One row a method: its difference to the method `against` (default: the best) on the items both have answered.

    Items are paired by task, seed and id, then averaged over seeds. `p` is not corrected for the number of rows.
    """
    labels = [label for label, _ in in_order(runs)]
    if against is not None and against not in labels:
        raise StvError(f"--against {against} is none of the methods; choose one of {', '.join(labels)}.")
    baseline = against or labels[-1]
    items = scores.pivot(index=["task", "seed", "id"], columns="label", values="score")
    return [_paired(items, label, baseline) for label in labels if label != baseline]


def by_task(runs: pd.DataFrame) -> list[dict[str, str]]:
    """One row a task, one column a method: mean and standard deviation over seeds."""
    labels = [label for label, _ in in_order(runs)]
    rows = []
    for task, own in runs.groupby("task", sort=True):
        cells = {label: own[own["label"] == label]["accuracy"] for label in labels}
        rows.append({"task": str(task)} | {k: _mean_and_deviation(v) if len(v) else "-" for k, v in cells.items()})
    return rows


def in_order(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Runs by label, the labels by mean accuracy."""
    groups = [(str(label), own) for label, own in runs.groupby("label")]
    return sorted(groups, key=lambda g: g[1]["accuracy"].mean())


def _paired(items: pd.DataFrame, label: str, baseline: str) -> list[str]:
    both = items[[label, baseline]].dropna().groupby(["task", "id"]).mean()
    if both.empty:
        return [label, baseline, "0", "-", "-", "-"]
    found = compare(both[label].tolist(), both[baseline].tolist())
    p = "< 0.001" if found.p < 0.001 else f"{found.p:.3f}"
    return [label, baseline, str(found.n), f"{found.difference:+.3f}", _range(found.low, found.high), p]


def _mean_and_deviation(values: pd.Series) -> str:
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def _range(low: float, high: float) -> str:
    return f"[{low:.3f}, {high:.3f}]"
