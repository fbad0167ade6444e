"""Accuracy by task: a row a method, a dot a seed, the mean over them and the interval over items."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stv_exp.report.pictures.canvas import COLOURS, INK, MOST, panels, plain, titled, unit_limits

ROWS, TASKS = 30, 11  # that are still readable
_WIDTH = 2.5  # inches


def accuracy_dots(runs: pd.DataFrame) -> Figure:
    """Panels of tasks with the best `ROWS` labels of all tasks; before them one of the mean where there are several."""
    means = runs.groupby(["label", "task"])["accuracy"].mean().groupby("label").mean().sort_values()
    labels = means.index[-ROWS:].tolist()
    shown = runs[runs["label"].isin(labels)].assign(row=lambda own: own["label"].map(labels.index))
    views = _views(shown)
    width = _WIDTH + (1.6 if len(views) == 1 else 0)
    figure, axes = panels(len(views), width, 0.19 * len(labels) + 0.9, same_rows=True)
    for panel, (name, own) in zip(axes, views.items(), strict=True):
        _draw(panel, own)
        titled(panel, name, _WIDTH)
        panel.set(xlim=unit_limits(shown["accuracy"]), xlabel="accuracy" if panel in axes[-MOST:] else "")
        panel.set_yticks(range(len(labels)), [plain(label, 44) for label in labels])
    return figure


def _views(shown: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each panel by its title."""
    tasks = sorted(shown["task"].unique())
    views = {task: shown[shown["task"] == task] for task in tasks[:TASKS]}
    if len(tasks) == 1:
        return views
    return {
        f"mean over tasks ({len(tasks)})": shown.groupby(["row", "seed"], as_index=False)["accuracy"].mean()
    } | views


def _draw(axes: Axes, own: pd.DataFrame) -> None:
    axes.scatter(own["accuracy"], own["row"], s=10, color=COLOURS[5], alpha=0.7, linewidths=0)
    if "accuracy_low" in own:
        bounds = own.groupby("row")[["accuracy_low", "accuracy_high"]].mean().dropna()
        axes.hlines(bounds.index, bounds["accuracy_low"], bounds["accuracy_high"], color=COLOURS[0], linewidth=1.2)
    means = own.groupby("row")["accuracy"].mean()
    axes.scatter(means, means.index, s=22, color=COLOURS[0], edgecolors=INK, linewidths=0.4, zorder=3)
