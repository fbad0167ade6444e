"""What accuracy costs: against token-forwards of the search and against seconds; and both by stage."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stv_exp.report.pictures.canvas import colour, legend, log_axis, marker, panels, plain, short_numbers, unit_limits
from stv_exp.report.stages import STAGES

ROWS = 30  # that are still readable
_AXES = {"search_token_forwards": "token-forwards of the search", "seconds.total": "seconds, all stages"}
_CHOICES = ("method.where", "method.what", "method.how")
_COSTS = {"seconds": "seconds", "token_forwards": "token-forwards"}


def accuracy_by_cost(runs: pd.DataFrame) -> Figure | None:
    """A point a label, mean over tasks and seeds; what costs nothing is a line across. None where costs are alike."""
    names = [name for name in _AXES if name in runs]
    points = runs.assign(ways=_ways(runs)).groupby(["ways", "label"], as_index=False)[["accuracy", *names]].mean()
    points = points.astype(dict.fromkeys(names, float))  # pandas' own whole numbers have a missing one of their own
    names = [name for name in names if points[name].nunique() > 1]
    if not names:
        return None
    figure, axes = panels(len(names), 3.3, 3.0)
    for panel, name in zip(axes, names, strict=True):
        for i, (ways, own) in enumerate(points.groupby("ways")):
            _points(panel, own[name], own["accuracy"], i, str(ways))
        log_axis(panel, points[name])
        panel.set(xlabel=_AXES[name], ylabel="accuracy", ylim=unit_limits(points["accuracy"]))
    legend(figure, axes[0], "method")
    return figure


def cost_bars(runs: pd.DataFrame) -> Figure | None:
    """Bars of each label's mean seconds and token-forwards, divided by stage; of the `ROWS` most expensive."""
    parts = {kind: own for kind in _COSTS if (own := _by_stage(runs, kind)).any(axis=None)}
    if not parts:
        return None
    labels = next(iter(parts.values())).sum(axis=1).sort_values().index[-ROWS:]
    figure, axes = panels(len(parts), 3.3, 0.19 * len(labels) + 1.0, same_rows=True)
    for panel, (kind, own) in zip(axes, parts.items(), strict=True):
        _bars(panel, own.loc[labels])
        panel.set_xlabel(f"{_COSTS[kind]} a run")
        short_numbers(panel)
        panel.set_yticks(range(len(labels)), [plain(str(label), 44) for label in labels])
    legend(figure, axes[0], "stage")
    return figure


def _ways(runs: pd.DataFrame) -> pd.Series:
    """The method of each run, with its choices that vary among that method's runs."""
    told = runs["method"].astype(str)
    for key in (key for key in _CHOICES if key in runs):
        varies = runs.groupby("method")[key].transform("nunique") > 1
        told = told.where(~varies, told + " " + runs[key].astype(str))
    return told


def _points(axes: Axes, costs: pd.Series, accuracies: pd.Series, i: int, name: str) -> None:
    paid = costs > 0
    axes.scatter(
        costs[paid], accuracies[paid], s=26, color=colour(i), marker=marker(i), alpha=0.85, linewidths=0, label=name
    )
    if (free := accuracies[costs == 0]).size:
        axes.axhline(free.max(), color=colour(i), linestyle="--", linewidth=1.1, zorder=1)


def _by_stage(runs: pd.DataFrame, kind: str) -> pd.DataFrame:
    columns = {f"{kind}.{stage}": stage for stage in (*STAGES, "evaluation") if f"{kind}.{stage}" in runs}
    return runs.groupby("label")[list(columns)].mean().rename(columns=columns).fillna(0).astype(float)


def _bars(axes: Axes, parts: pd.DataFrame) -> None:
    left = pd.Series(0.0, parts.index)
    for i, stage in enumerate(parts):
        axes.barh(range(len(parts)), parts[stage], left=left, color=colour(i), height=0.7, label=str(stage))
        left += parts[stage]
    axes.grid(visible=False, axis="y")
