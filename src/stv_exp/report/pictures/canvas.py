"""What all pictures share: size, colours, panels and names that fit."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator
from numpy.typing import NDArray

INK = "#1f2328"  # of text, which a page replaces by its own
FAINT = "#8a929c"  # of axes and grids, seen on white and on black
# Okabe and Ito's, told apart by all eyes, without the black and the yellow that vanish on one of the two grounds.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # of another number than the colours: together they repeat late
MOST = 4  # panels a row
_LONGEST = 60  # characters of a name that still leave room for the axes


def panels(n: int, width: float, height: float, *, same_rows: bool = False) -> tuple[Figure, list[Axes]]:
    """`n` axes of about `width` x `height` inches, `MOST` a row; `same_rows` names the rows of the first ones only."""
    columns = min(n, MOST)
    rows = -(-n // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=same_rows)
    every = [axes for row in grid for axes in row]
    for axes in every[n:]:
        axes.remove()
    return figure, [styled(axes) for axes in every[:n]]


def styled(axes: Axes) -> Axes:
    """Axes in the background: faint lines, small text."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=8, labelcolor=INK, color=FAINT)
    axes.grid(color=FAINT, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_facecolor("none")
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set(color=INK, fontsize=9)
    return axes


def titled(axes: Axes, text: str, width: float) -> None:
    """A panel's title in two lines at most, for a panel of so many inches."""
    room = int(width * 14)
    lines = textwrap.wrap(plain(text, 2 * room - 8), room, max_lines=2, placeholder=" …")
    axes.set_title("\n".join(lines), fontsize=9, color=INK)


def log_axis(axes: Axes, values: Iterable[float]) -> None:
    """A logarithmic x axis over the positive values and over a factor of 20 at least, which has room for ticks."""
    positive = [v for v in values if v > 0]
    low, high = min(positive), max(positive)
    wider = max(1.3, (20 * low / high) ** 0.5)
    axes.set(xscale="log", xlim=(low / wider, high * wider))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=8))
    short_numbers(axes)
    axes.minorticks_off()


def short_numbers(axes: Axes) -> None:
    """`20k` on the x axis, and small numbers as they are."""
    thousands = EngFormatter(sep="")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: thousands(x) if x >= 1000 else f"{x:g}"))


def legend_above(figure: Figure, axes: Axes) -> None:
    """In one row over the panels, for few names."""
    handles, names = axes.get_legend_handles_labels()
    shown = figure.legend(handles, names, loc="outside upper left", ncols=len(names), fontsize=8, labelcolor=INK)
    shown.get_frame().set(facecolor="none", edgecolor="none")


def legend(figure: Figure, axes: Axes, title: str) -> None:
    """Beside the panels, where it hides nothing; of more names than fit, several columns."""
    handles, names = axes.get_legend_handles_labels()
    height = figure.get_size_inches()[1]
    columns = -(-len(names) // max(1, int((height - 0.4) / 0.2))) or 1
    shown = figure.legend(
        handles, names, title=title, loc="outside right center", ncols=columns, fontsize=8, labelcolor=INK
    )
    shown.get_title().set(color=INK, fontsize=8)
    shown.get_frame().set(facecolor="none", edgecolor="none")


def colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def marker(i: int) -> str:
    return MARKERS[i % len(MARKERS)]


def band(curves: Sequence[Sequence[float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of curves by step, as far as the shortest goes (one curve: a deviation of 0)."""
    steps = min(map(len, curves))
    values = np.array([curve[:steps] for curve in curves], dtype=float)
    return values.mean(0), values.std(0, ddof=1) if len(values) > 1 else np.zeros(steps)


def plain(text: str, longest: int = _LONGEST) -> str:
    """A name as it is, shortened where it is long: no formula is seen between two dollars."""
    short = text if len(text) <= longest else f"{text[: longest // 2]}…{text[1 - longest // 2 :]}"
    return short.replace("$", r"\$")


def unit_limits(values: Iterable[float]) -> tuple[float, float]:
    """Where an axis of accuracies goes from and to: 0 to 1, or closer where all are on one side of the middle."""
    known = [v for v in values if v == v]
    low, high = min(known, default=0.0), max(known, default=1.0)
    return (0.5 if low >= 0.55 else 0.0) - 0.02, (0.5 if high <= 0.45 else 1.0) + 0.02
