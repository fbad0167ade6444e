"""Which heads runs have ranked and taken: how stable that is, how much of it the layer says, who agrees with whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stv_exp.errors import StvError
from stv_exp.report.cells import number, probability
from stv_exp.report.damage import DamagedError
from stv_exp.report.ranking import ranking, vector_locations
from stv_exp.report.ranks import kappa, layer_share, rank_correlation
from stv_exp.report.tables import Table, in_order
from stv_exp.report.text import brief

_STABLE = [f"{what} over {over}" for what in ("correlation", "kappa") for over in ("seeds", "tasks")]
HEADERS = ["method", "runs", "heads", *_STABLE, "layer share", "shuffled", "p"]


@dataclass(frozen=True)
class Heads:
    """Of one run: the heads that its vector is inserted at `[L, H]`, and what they were ranked by (None: nothing)."""

    label: str
    task: str
    seed: int
    taken: NDArray[np.bool_]
    scores: NDArray[np.float64] | None


Pair = tuple[Heads, Heads]


def tables(runs: pd.DataFrame, outputs: Path, title: str) -> tuple[list[Table], list[str]]:
    """A row a method, and methods against each other; sentences on runs whose heads cannot be read.

    `correlation` is Spearman's of the scores, `kappa` Cohen's of the heads that are taken (0: as by chance). `layer
    share` is the share of the variance of ranks that is between layers, `shuffled` what it is where heads are shuffled,
    the same way for all tasks and seeds, and `p` the share of shuffles that reach it. Raises `StvError` where no run
    inserts at heads.
    """
    found, notes = _heads(runs, outputs)
    if not found:
        raise StvError("None of these runs inserts at heads; run a method that does, such as stv or mtv.")
    by_label = {label: own for label, _ in in_order(runs) if (own := [h for h in found if h.label == label])}
    rows = [_row(label, own) for label, own in by_label.items()]
    agreed = _matrix("agreement", f"{title}: kappa of the heads taken", by_label, _kappa)
    ranked = {label: own for label, own in by_label.items() if all(h.scores is not None for h in own)}
    correlated = _matrix("correlation", f"{title}: rank correlation of the scores", ranked, _correlation)
    return [Table("heads", title, HEADERS, rows), agreed, *([correlated] if ranked else [])], notes


def _heads(runs: pd.DataFrame, outputs: Path) -> tuple[list[Heads], list[str]]:
    found, notes = list[Heads](), list[str]()
    for _, run in runs.iterrows():
        locations = vector_locations(Path(run["folder"]) / "task_vector.safetensors")
        if not locations or len(locations[0]) != 2:
            continue  # prompting, or a vector at a site without heads
        try:
            found.append(_read(run, locations, outputs))
        except DamagedError as error:
            notes.append(f"Run {brief(run['run'])} is left out: {error}.")
    return found, notes


def _read(run: pd.Series, locations: list[tuple[int, ...]], outputs: Path) -> Heads:
    ranked = ranking(outputs / "stages" / f"bank-{run['bank']}")
    if pd.isna(run.get("layers")) or pd.isna(run.get("heads")):
        raise DamagedError("metrics.json says of no layers and heads; the run is of an earlier version")
    taken = np.zeros((int(run["layers"]), int(run["heads"])), dtype=bool)
    try:
        taken[tuple(np.array(locations).T)] = True
    except IndexError as error:
        raise DamagedError("task_vector.safetensors has heads that its model has not") from error
    return Heads(run["label"], run["task"], run["seed"], taken, None if ranked is None else ranked.scores.astype(float))


def _row(label: str, own: Sequence[Heads]) -> list[str]:
    seeds = [(a, b) for a, b in combinations(own, 2) if a.task == b.task]
    tasks = [(a, b) for a, b in combinations(own, 2) if a.seed == b.seed]
    stable = [_mean(of, pairs) for of in (_correlation, _kappa) for pairs in (seeds, tasks)]
    share, shuffled, p = layer_share([h.taken.astype(float) if h.scores is None else h.scores for h in own])
    layers = [number(share, ""), number(shuffled, ""), probability(p)]
    return [label, str(len(own)), f"{fmean(h.taken.sum() for h in own):.0f}", *stable, *layers]


def _matrix(name: str, title: str, by_label: dict[str, list[Heads]], of: Callable[[Pair], float]) -> Table:
    """Means over what has run on the same task with the same seed."""
    rows = []
    for label, own in by_label.items():
        others = [[(a, b) for a, b in product(own, o) if _same_question(a, b)] for o in by_label.values()]
        rows.append([label, *(_mean(of, pairs) for pairs in others)])
    return Table(name, title, ["method", *by_label], rows)


def _same_question(a: Heads, b: Heads) -> bool:
    return (a.task, a.seed) == (b.task, b.seed) and a.taken.shape == b.taken.shape


def _mean(of: Callable[[Pair], float], pairs: Iterable[Pair]) -> str:
    values = [value for pair in pairs if not np.isnan(value := of(pair))]
    return number(fmean(values) if values else float("nan"), "")


def _kappa(pair: Pair) -> float:
    return kappa(pair[0].taken, pair[1].taken)


def _correlation(pair: Pair) -> float:
    a, b = (h.scores for h in pair)
    return float("nan") if a is None or b is None else rank_correlation(a, b)
