"""What every run has cost, by stage, and every method in the mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from stv_exp.report.cells import number
from stv_exp.report.stages import STAGES
from stv_exp.report.tables import Table, by_model, in_order

_COUNTED = ("seconds", "forwards", "token_forwards", "peak_memory_by_stage")
_MEMORY = _COUNTED[-1]
_STAGES = (*STAGES, "evaluation")
_NAMES = ["method", "task", "seed", "run", "stage"]
_HEADERS = ["seconds", "forwards", "token-forwards", "peak memory (MB)", "queries to pay"]


def cost(runs: pd.DataFrame) -> Table:
    """One row a stage of each run, and one for all of them, which has the peak of the whole and the queries to pay."""
    stages = _stages(runs)
    rows = [
        [model, *row]
        for model, block in by_model(runs)
        for _, own in in_order(block)
        for _, run in own.sort_values(["task", "seed"]).iterrows()
        for row in _rows(run, [str(run[key]) for key in ("variant", "task", "seed", "run")], stages)
    ]
    return Table("cost", "", ["model", *_NAMES, *_HEADERS], rows, by=1, names=len(_NAMES)).varying()


def mean_cost(runs: pd.DataFrame) -> Table:
    """The same of each method, in the mean over its tasks and seeds."""
    stages = _stages(runs)
    rows = [
        [model, *row]
        for model, block in by_model(runs)
        for _, own in in_order(block)
        for row in _rows(own.mean(numeric_only=True).astype(float), [str(own["variant"].iloc[0])], stages)
    ]
    return Table("stages", "", ["model", "method", "stage", *_HEADERS], rows, by=1, names=2).varying()


def _stages(runs: pd.DataFrame) -> list[str]:
    """In the order in which they run."""
    return sorted({stage for key in runs.columns if (stage := _stage(str(key))) not in ("", "total")}, key=_place)


def _rows(run: pd.Series, names: list[str], stages: list[str]) -> Iterator[list[str]]:
    for stage in stages:
        counts = [run.get(f"{name}.{stage}", float("nan")) for name in _COUNTED]
        if not all(map(pd.isna, counts)):
            yield [*names, stage, *_cells(counts), "-"]
    totals = [_total(run, name, stages) for name in _COUNTED]
    yield [*names, "total", *_cells(totals), number(run["queries_to_pay"], "queries_to_pay")]


def _stage(key: str) -> str:
    name, _, stage = key.partition(".")
    return stage if name in _COUNTED else ""


def _place(stage: str) -> tuple[int, str]:
    return (_STAGES.index(stage) if stage in _STAGES else len(_STAGES), stage)


def _total(run: pd.Series, name: str, stages: list[str]) -> float:
    """As it was recorded; else the sum of the stages, of memory the largest."""
    for key in ("peak_memory_bytes",) if name == _MEMORY else (f"{name}.total", name):
        if not pd.isna(run.get(key)):
            return run[key]
    counts = pd.Series([run.get(f"{name}.{stage}") for stage in stages], dtype=float)
    return counts.max() if name == _MEMORY else counts.sum(min_count=1)


def _cells(counts: Sequence[float]) -> list[str]:
    *others, memory = counts
    cells = [number(count, name) for count, name in zip(others, _COUNTED, strict=False)]
    return [*cells, number(memory / 1e6, "bytes")]
