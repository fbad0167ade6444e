"""Accuracy over the number of locations K and of candidates M: heat maps, and lines over K."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stv_exp.report.pictures.canvas import colour, legend, marker, panels, titled, unit_limits

PANELS = 12  # that are still readable
_K_OR_M = r" (?:method\.)?[km]=\S+"
_WIDTH = 2.9


def by_k_and_m(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of methods that have a K, with the columns k, m (NaN: none) and series, what they have else in common.

    Without rows where K does not vary.
    """
    asked = runs.reindex(columns=["method.k", "method.m"]).apply(pd.to_numeric, errors="coerce").astype(float)
    rows = runs.assign(k=asked["method.k"], m=asked["method.m"], series=_series(runs)).dropna(subset="k")
    return rows[rows.groupby("series")["k"].transform("nunique") > 1]


def accuracy_maps(rows: pd.DataFrame) -> Figure | None:
    """Heat maps of the mean accuracy over tasks and seeds, one for each series where both K and M vary."""
    varied = rows[rows.groupby("series")["m"].transform("nunique") > 1]
    tables = [
        (str(name), own.pivot_table(index="m", columns="k", values="accuracy", aggfunc="mean").sort_index())
        for name, own in varied.groupby("series")
    ][:PANELS]
    if not tables:
        return None
    ks, ms = (max(table.shape[side] for _, table in tables) for side in (1, 0))
    width = max(_WIDTH, 0.5 * ks + 0.9)
    figure, axes = panels(len(tables), width, max(1.9, 0.36 * ms + 0.9))
    low, high = varied["accuracy"].min(), varied["accuracy"].max()
    for panel, (name, table) in zip(axes, tables, strict=True):
        _map(panel, table, low, max(high, low + 0.01))
        titled(panel, name, width)
        panel.set(xlabel="K, locations", ylabel="M, candidates")
    return figure


def accuracy_by_k(rows: pd.DataFrame) -> Figure | None:
    """Lines over K, one for each M: mean over tasks, then mean and standard deviation over seeds."""
    series = [(str(name), own) for name, own in rows.groupby("series")][:PANELS]
    if not series:
        return None
    ms = sorted(rows["m"].unique(), key=lambda m: (pd.isna(m), m))
    figure, axes = panels(len(series), max(_WIDTH, 5.2 - len(series)), 2.5)
    for panel, (name, own) in zip(axes, series, strict=True):
        for i, m in enumerate(ms):
            _line(panel, own[own["m"].isna() if pd.isna(m) else own["m"] == m], i, "none" if pd.isna(m) else f"{m:g}")
        titled(panel, name, _WIDTH)
        panel.set(ylabel="accuracy", ylim=unit_limits(rows["accuracy"]))
        _k_axis(panel, sorted(own["k"].unique()))
    legend(figure, axes[0], "M")
    return figure


def _series(runs: pd.DataFrame) -> pd.Series:
    """Labels without K and M; with the model, where several are told apart in no label."""
    series = runs["label"].str.replace(_K_OR_M, "", regex=True)
    models = runs.get("model.name")
    if models is None or models.nunique() < 2 or series.str.contains("model=", regex=False).any():
        return series
    return series + ", " + models.astype(str)


def _map(axes: Axes, table: pd.DataFrame, low: float, high: float) -> None:
    """Cells with their number, in the colour that is seen on them; an empty cell is a setting without a run."""
    axes.grid(visible=False)
    axes.imshow(table, cmap="cividis", interpolation="none", vmin=low, vmax=high, aspect="auto", origin="lower")
    for (i, j), value in np.ndenumerate(table.to_numpy()):
        if not np.isnan(value):
            dark = value < (low + high) / 2
            axes.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize=8, color="#fff" if dark else "#000")
    axes.set_xticks(range(table.shape[1]), [f"{k:g}" for k in table.columns])
    axes.set_yticks(range(table.shape[0]), [f"{m:g}" for m in table.index])


def _k_axis(axes: Axes, ks: Sequence[float]) -> None:
    axes.set(xlabel="K, locations", xscale="log")
    axes.set_xticks(ks, [f"{k:g}" for k in ks])
    axes.minorticks_off()


def _line(axes: Axes, own: pd.DataFrame, i: int, name: str) -> None:
    by_seed = own.groupby(["k", "seed"])["accuracy"].mean().groupby("k")
    means, deviations = by_seed.mean(), by_seed.std().fillna(0)
    ks = cast(list[float], means.index.tolist())
    axes.plot(ks, means, marker=marker(i), color=colour(i), markersize=4, linewidth=1.4, label=name)
    axes.fill_between(ks, means - deviations, means + deviations, color=colour(i), alpha=0.18, linewidth=0)
