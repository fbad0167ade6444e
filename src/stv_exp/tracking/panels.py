"""The pictures of a study that W&B draws: its saved view and its report show the same ones."""

from __future__ import annotations

from collections.abc import Iterable

import wandb_workspaces.expr as expr
import wandb_workspaces.reports.v2 as wr

ACCURACY = wr.SummaryMetric("accuracy")
K, M, METHOD, TASK = (wr.Config(key) for key in ("method.k", "method.m", "method.name", "dataset.task"))
_COSTS = {"token-forwards": "cost.token_forwards", "seconds": "cost.seconds"}


def k_by_m() -> list[wr.Panel]:
    """Accuracy over K, one colour an M, and the mean of either with its standard error."""
    over = wr.ScatterPlot(title="Accuracy over K, by M (colour)", x=K, y=ACCURACY, z=M, range_y=(0, 1))
    columns = [wr.ParallelCoordinatesPlotColumn(metric=metric) for metric in (K, M, ACCURACY)]
    return [over, bars("K", K), bars("M", M), wr.ParallelCoordinatesPlot(columns=columns, title="K, M, accuracy")]


def bars(name: str, by: wr.Config) -> wr.Panel:
    """Mean accuracy and standard error of each value of a setting."""
    title, grouped = f"Accuracy by {name}", {"groupby_aggfunc": "mean", "groupby_rangefunc": "stderr"}
    return wr.BarPlot(title=title, metrics=[ACCURACY], groupby=by, range_x=(0, 1), **grouped)


def curves(names: Iterable[str]) -> list[wr.Panel]:
    """What the search has logged a step: mean and standard deviation of each method."""
    grouped = {"groupby": METHOD, "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    return [wr.LinePlot(title=name, x="step", y=[name], aggregate=True, **grouped) for name in names]


def costs() -> list[wr.Panel]:
    """Accuracy against what it has cost."""
    drawn = {name: wr.SummaryMetric(key) for name, key in _COSTS.items()}
    return [
        wr.ScatterPlot(title=f"Accuracy against {name}", x=x, y=ACCURACY, log_x=True, range_y=(0, 1))
        for name, x in drawn.items()
    ]


def predictions() -> list[wr.Panel]:
    """The tables of all runs, the wrong answers first."""
    return [wr.WeavePanelSummaryTable(table_name="predictions", layout=wr.Layout(w=24, h=14))]


def of_study(study: str | None, method: str | None = None) -> list[expr.FilterExpr]:
    """The filter for the runs of a study and of a method (None: all), which are their group and their job type."""
    known = {"Group": study, "JobType": method}
    return [expr.Metric(name) == _quoted(value) for name, value in known.items() if value is not None]


def _quoted(text: str) -> str:
    """A filter is written as Python and read again, with quotes and operators in a text taken for its own."""
    return "".join(c if c.isalnum() or c in "-_" else f"\\U{ord(c):08x}" for c in text)
