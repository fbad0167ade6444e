"""The pictures of a report, drawn with matplotlib's own canvas: no display, no global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:  # a report without a map needs no torch
    from stv_exp.artefacts.bank import Bank
    from stv_exp.report.ranking import Ranking

_LONGEST = 60  # characters of a name that still leave room for the axes


def location_map(bank: Bank | Ranking, title: str = "") -> Figure:
    """Heat map of what a bank's locations were ranked by (`[L, H]`, or `[L]` as one column), with them marked."""
    assert bank.scores is not None
    scores = np.asarray(bank.scores, dtype=np.float32).reshape(len(bank.scores), -1)
    figure = _figure(0.42 * scores.shape[1] + 2.2, 0.42 * scores.shape[0] + 1.3)
    axes = figure.add_subplot()
    shown = axes.imshow(scores, cmap="viridis")
    figure.colorbar(shown, label="score")
    layers, columns = bank.locations[:, 0], bank.locations[:, -1] if scores.shape[1] > 1 else 0 * bank.locations[:, 0]
    axes.scatter(columns, layers, marker="s", s=60, facecolors="none", edgecolors="white")
    axes.set(xlabel="head", ylabel="layer", title=plain(title))
    return figure


def reward_curves(histories: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]) -> Figure:
    """Mean reward a step of each method against random candidates; `histories` holds a list of runs a method."""
    figure = _figure(3.4 * max(1, len(histories)), 3.2)
    for i, (method, runs) in enumerate(histories.items()):
        axes = figure.add_subplot(1, len(histories), i + 1)
        for name, style, label in (("reward", "-", "policy"), ("reward_random", ":", "random candidates")):
            axes.plot(_smooth([fmean(v) for v in zip(*(run[name] for run in runs), strict=False)]), style, label=label)
        axes.set(title=plain(method), xlabel="step", ylabel="reward (log-likelihood)" if i == 0 else "")
        axes.legend(fontsize=8)
    return figure


def accuracy_bars(accuracies: Mapping[str, Sequence[float]]) -> Figure:
    """Accuracy by method, mean and standard deviation over seeds (of the mean over tasks)."""
    figure = _figure(6.4, 0.38 * len(accuracies) + 1.2)
    axes = figure.add_subplot()
    names = list(accuracies)
    means = [fmean(accuracies[n]) for n in names]
    deviations = [stdev(accuracies[n]) if len(accuracies[n]) > 1 else 0.0 for n in names]
    colours = ["#4c78a8" if n.startswith("stv") else "#b8b8b8" for n in names]
    bars = axes.barh(range(len(names)), means, xerr=deviations, color=colours)
    axes.bar_label(bars, [f"{m:.3f} ± {d:.3f}" for m, d in zip(means, deviations, strict=True)], padding=4, fontsize=8)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="accuracy", xlim=(0, 1.2), xticks=[0, 0.25, 0.5, 0.75, 1])
    return figure


def plain(text: str) -> str:
    """A name as it is, shortened where it is long: no formula is seen between two dollars."""
    short = text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[1 - _LONGEST // 2 :]}"
    return short.replace("$", r"\$")


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _smooth(values: Sequence[float], window: int = 9) -> list[float]:
    """Running mean over the last `window` steps."""
    return [fmean(values[max(0, i - window + 1) : i + 1]) for i in range(len(values))]
