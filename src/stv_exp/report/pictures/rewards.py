"""Rewards of searches: the policy's against those of random candidates, by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stv_exp.report.pictures.canvas import COLOURS, FAINT, MOST, band, legend_above, panels, titled

PANELS = 12  # that are still readable
_WIDTH, _WINDOW = 2.5, 9  # inches; steps of the running mean
_LINES = (("reward", COLOURS[0], "-", "policy"), ("reward_random", FAINT, "--", "random candidates"))


def reward_curves(histories: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]) -> Figure:
    """Mean and standard deviation over a label's runs (tasks and seeds); the last `PANELS` labels, last first."""
    shown = list(histories.items())[: -PANELS - 1 : -1]
    figure, axes = panels(len(shown), _WIDTH + (1.4 if len(shown) == 1 else 0), 1.9, same_rows=True)
    for panel, (label, runs) in zip(axes, shown, strict=True):
        for name, colour, style, words in _LINES:
            if all(name in run for run in runs):
                _curve(panel, [_smooth(run[name]) for run in runs], colour, style, words)
        titled(panel, label, _WIDTH)
    for panel in axes[-MOST:]:
        panel.set_xlabel("step")
    axes[0].set_ylabel("reward\n(log-likelihood)")
    legend_above(figure, max(axes, key=lambda panel: len(panel.lines)))  # a search need not draw at random too
    return figure


def _curve(axes: Axes, curves: Sequence[Sequence[float]], colour: str, style: str, name: str) -> None:
    mean, deviation = band(curves)
    axes.plot(mean, style, color=colour, linewidth=1.3, label=name)
    axes.fill_between(range(len(mean)), mean - deviation, mean + deviation, color=colour, alpha=0.18, linewidth=0)


def _smooth(values: Sequence[float]) -> list[float]:
    """Running mean over the last steps."""
    return pd.Series(values).rolling(_WINDOW, min_periods=1).mean().tolist()
