"""What locations were ranked by, over layers and heads, and which ones were taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from stv_exp.report.pictures.canvas import INK, panels, titled

PANELS = 12  # that are still readable
Ranked = tuple[NDArray[np.floating[Any]], NDArray[np.integer[Any]]]  # scores [L, H] or [L], locations [K, 2] or [K, 1]


def location_map(scores: NDArray[np.floating[Any]], locations: NDArray[np.integer[Any]], name: str = "") -> Figure:
    """Heat map of one ranking (`[L, H]`, or `[L]` as one column), with its locations marked."""
    return location_maps({name: [(scores, locations)]})


def location_maps(rankings: Mapping[str, Sequence[Ranked]]) -> Figure:
    """By name, the mean of rankings of one shape; a square is as strong as the share of them that took the location."""
    shown = dict(islice(rankings.items(), PANELS))
    layers, heads = (max(_grid(own[0][0]).shape[side] for own in shown.values()) for side in (0, 1))
    cell = min(0.3, 7 / max(layers, heads))
    width = max(2.6, cell * heads + 1.3)
    figure, axes = panels(len(shown), width, max(1.8, cell * layers + 0.9))
    for panel, (name, own) in zip(axes, shown.items(), strict=True):
        image = _draw(panel, own, 72 * cell)
        bar = figure.colorbar(image, ax=panel, shrink=0.9)
        bar.ax.tick_params(labelsize=7, labelcolor=INK)
        bar.outline.set_visible(False)
        titled(panel, name, width)
        panel.set(xlabel="head", ylabel="layer")
    return figure


def _draw(axes: Axes, rankings: Sequence[Ranked], side: float) -> AxesImage:
    """`side` is that of a cell, in points."""
    scores = np.stack([_grid(scores) for scores, _ in rankings])
    taken = np.zeros(scores.shape[1:])
    for _, locations in rankings:
        taken[locations[:, 0], locations[:, -1] if scores.shape[2] > 1 else 0] += 1 / len(rankings)
    axes.grid(visible=False)
    layers, heads = taken.nonzero()
    white = [(1.0, 1.0, 1.0, min(1.0, share)) for share in taken[layers, heads].tolist()]
    axes.scatter(heads, layers, s=(0.6 * side) ** 2, marker="s", facecolors="none", edgecolors=white)
    return axes.imshow(scores.mean(0), cmap="viridis", interpolation="none", aspect="auto")


def _grid(scores: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    return scores.reshape(len(scores), -1)
