"""The tables of a report: by method, and by task."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from stv_exp.report.cells import deviated, number, spread
from stv_exp.report.text import in_size
from stv_exp.statistics import interval

HEADERS = ["method", "accuracy", "95%", "tasks", "seeds", "location search (s)", "all stages (s)"]
HEADERS += ["candidate evaluations", "token-forwards", "queries to pay"]


@dataclass(frozen=True)
class Table:
    """One table; `name` is that of its files.

    The first `by` columns tell its blocks apart and the next `names` its rows, the others are numbers. A column that is
    `told` is left out on screen where all of a block have the same, which is then in the title.
    """

    name: str
    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    by: int = 0
    names: int = 1
    told: Collection[str] = ()

    def csv(self) -> str:
        """The cells as they are shown."""
        return pd.DataFrame(list(self.rows), columns=list(self.headers)).to_csv(index=False)

    def varying(self) -> Table:
        """The same without the columns of blocks in which all rows have the same."""
        kept = [i for i in range(len(self.headers)) if i >= self.by or len({row[i] for row in self.rows}) > 1]
        rows = [[row[i] for i in kept] for row in self.rows]
        by = self.by - (len(self.headers) - len(kept))
        return replace(self, headers=[self.headers[i] for i in kept], rows=rows, by=by)


def headline(runs: pd.DataFrame, predictions: pd.DataFrame, title: str) -> Table:
    """One row a method, a block a model: mean over tasks, then mean and deviation over seeds; costs are means a run.

    The 95% interval is over eval items, each with its mean over seeds: answering the same item again is no new item.
    `queries to pay` is the mean of the runs that pay.
    """
    rows = [[model, *_summary(own, predictions)] for model, block in by_model(runs) for _, own in in_order(block)]
    return Table("table", title, ["model", *HEADERS], rows, by=1, told=("tasks", "seeds")).varying()


def by_task(runs: pd.DataFrame) -> Table:
    """One row a task, one column a method: mean and standard deviation over seeds."""
    labels = [label for label, _ in in_order(runs)]
    rows = []
    for task in sorted(set(runs["task"]), key=in_size):
        own = runs[runs["task"] == task]
        cells = [own[own["label"] == label]["accuracy"] for label in labels]
        rows.append([task, *(deviated(cell, "accuracy") for cell in cells)])
    return Table("tasks", "", ["task", *labels], rows)


def in_order(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Runs by label, the labels by mean accuracy."""
    groups = [(str(label), own) for label, own in runs.groupby("label")]
    return sorted(groups, key=lambda g: (g[1]["accuracy"].mean(), in_size(g[0])))


def by_model(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    groups = [(str(model), own) for model, own in runs.groupby("model")]
    return sorted(groups, key=lambda group: in_size(group[0]))


def _summary(own: pd.DataFrame, predictions: pd.DataFrame) -> list[str]:
    items = predictions[predictions["label"] == own["label"].iloc[0]].groupby(["task", "id"])["correct"].mean()
    costs = ("location_search_seconds", "seconds.total", "candidate_evaluations", "search_token_forwards")
    by_seed = own.groupby("seed")["accuracy"].mean()
    return [
        str(own["variant"].iloc[0]),
        deviated(by_seed, "accuracy"),
        spread(*interval(items.tolist())),
        str(own["task"].nunique()),
        str(len(by_seed)),
        *(number(own[key].mean(), key) for key in (*costs, "queries_to_pay")),
    ]
