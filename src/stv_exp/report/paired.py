"""Each method against one of them, on the items that both have answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from stv_exp.errors import StvError
from stv_exp.report.cells import probability, spread
from stv_exp.report.pay import conditions, most_shots_first
from stv_exp.report.tables import Table, by_model, in_order
from stv_exp.report.text import brief, in_size, listed
from stv_exp.statistics import Comparison, compare, holm

HEADERS = ["method", "against", "items", "difference", "95%", "p", "p (Holm)"]

_TITLE = "difference on the same items"


@dataclass(frozen=True)
class _Pair:
    model: str
    method: str
    against: str
    found: Comparison | None  # None without a common item


def paired(runs: pd.DataFrame, predictions: pd.DataFrame, against: str | None = None) -> tuple[Table, list[str]]:
    """One row a method and model: its difference to the baseline of its model on the items that both have answered.

    Items are paired by task, seed and id, then averaged over seeds. The baseline is `against` (a label, a method or the
    beginning of a label), else few-shot prompting that was asked most nearly as the method was (`conditions`), with the
    most demonstrations, else the best method. `p (Holm)` is corrected for the number of rows. With a sentence on models
    without a baseline; raises `StvError` where no model has one, or one has several.
    """
    baselines = {model: _baselines(block, against) for model, block in by_model(runs)}
    if not any(baselines.values()):
        labels = [label for label, _ in in_order(runs)]
        raise StvError(f"--against {brief(against)} is none of the methods; choose one of {', '.join(labels)}.")
    pairs = [pair for model, block in by_model(runs) for pair in _pairs(model, block, predictions, baselines[model])]
    corrected = iter(holm([pair.found.p for pair in pairs if pair.found]))
    rows = [[pair.model, pair.method, pair.against, *_cells(pair.found, corrected)] for pair in pairs]
    table = Table("paired", _TITLE, ["model", *HEADERS], rows, by=1, told=("against", "items"))
    without = [model for model, own in baselines.items() if not own]
    return table.varying(), [f"No run of {listed(without)} is one of {against}: its methods are not paired."] * bool(
        without
    )


def _pairs(model: str, block: pd.DataFrame, predictions: pd.DataFrame, baselines: Mapping[str, str]) -> Iterator[_Pair]:
    variants = dict(zip(block["label"], block["variant"], strict=True))
    own = predictions[predictions["label"].isin(list(variants))]
    items = own.pivot(index=["task", "seed", "id"], columns="label", values="correct")
    for label, _ in in_order(block):
        if (baseline := baselines.get(label, label)) != label:
            both = items[[label, baseline]].dropna().astype(float).groupby(["task", "id"]).mean()
            found = None if both.empty else compare(both[label].tolist(), both[baseline].tolist())
            yield _Pair(model, variants[label], variants[baseline], found)


def _baselines(block: pd.DataFrame, against: str | None) -> dict[str, str]:
    """By label of a model's runs, the one that it is compared with; empty where there is none of those asked for."""
    labels, few = [label for label, _ in in_order(block)], most_shots_first(block)
    if against is not None:
        baseline = _asked(block, against)
        return dict.fromkeys(labels, baseline) if baseline else {}
    if few.empty:
        return dict.fromkeys(labels, labels[-1])
    return {label: _nearest(block[block["label"] == label], few) for label in labels}


def _nearest(own: pd.DataFrame, few: pd.DataFrame) -> str:
    """The prompting that shares most of a label's runs in task, seed and `conditions`, the first of those that do."""
    same = ["task", "seed", *conditions(own)]
    counts = few[["label", *same]].merge(own[same], on=same)["label"].value_counts()
    return str(max(few["label"].unique(), key=lambda label: counts.get(label, 0)))  # of as many the first


def _asked(block: pd.DataFrame, against: str) -> str | None:
    starts = block["label"].str.startswith(against)
    for fits in (block["label"] == against, block["variant"] == against, block["method"] == against, starts):
        found = block[fits]
        labels = most_shots_first(found)["label"].tolist()[:1] or sorted(found["label"].unique(), key=in_size)
        if len(labels) > 1:
            raise StvError(f"--against {brief(against)} may be {listed(labels)}; write the one that you mean.")
        if labels:
            return str(labels[0])
    return None


def _cells(found: Comparison | None, corrected: Iterator[float]) -> list[str]:
    if found is None:
        return ["0", *"----"]
    difference, interval = f"{found.difference:+.3f}", spread(found.low, found.high)
    return [str(found.n), difference, interval, probability(found.p), probability(next(corrected))]
