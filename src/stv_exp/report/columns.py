"""The columns of a table of runs, and of one of their predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from stv_exp.errors import printable
from stv_exp.report.damage import is_whole
from stv_exp.report.record import Record
from stv_exp.statistics import interval

LEADING = ["run", "folder", "label", "method", "model", "task", "seed"]
LEADING += ["accuracy", "accuracy_low", "accuracy_high", "n"]
ITEM = ["run", "label", "task", "seed", "id", "question", "answers", "prediction", "correct", "demonstration_ids"]
# Of runs that were not asked for them, or of an earlier version: NaN.
_EXPECTED = ("validation_accuracy", "location_search_seconds", "token_forwards.evaluation")


def recorded(records: Sequence[Record], metric: str | None) -> pd.DataFrame:
    """The columns of `frame.runs` that each run has by itself; with `metric` its accuracy is its items' mean score."""
    rows = [_row(record, metric) for record in records]
    missing = {key: float("nan") for record in records for key in record.numbers}
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = {key: _column([row.get(key, missing.get(key)) for row in rows]) for key in keys}
    return pd.DataFrame(columns).assign(overrides=pd.Series([list(r.overrides) for r in records], dtype=object))


def items(records: Sequence[Record], runs: pd.DataFrame) -> pd.DataFrame:
    """The predictions of `runs`, which are some of the records."""
    own = {str(record.folder): record.items for record in records}
    same = ["run", "label", "task", "seed"]
    return pd.concat([own[run["folder"]].assign(**run[same]) for _, run in runs.iterrows()], ignore_index=True)[ITEM]


def _row(record: Record, metric: str | None) -> dict[str, Any]:
    tokens = {k: n for k, n in record.numbers.items() if k.startswith("token_forwards.")}
    search = [n for stage, n in tokens.items() if stage != "token_forwards.evaluation"]
    code = {f"code.{stage}": version for stage, version in record.code.items()}
    own = {
        "run": printable(record.folder.name),
        "folder": str(record.folder),
        "method": printable(record.method),
        "seed": record.seed,
        "search_token_forwards": float(sum(search)) if tokens else float("nan"),
        "bank": record.bank,
        "origin.model": printable(record.model),
        "origin.data": printable(record.data),
        "origin.learned_from": printable(record.learned),
    }
    missing = dict.fromkeys(_EXPECTED, float("nan"))
    return {**record.settings, **missing, **record.numbers, **_accuracy(record, metric), **code, **own}


def _accuracy(record: Record, metric: str | None) -> dict[str, float]:
    """Runs of 0.2 have no interval."""
    if metric is None and {"accuracy_low", "accuracy_high"} <= record.numbers.keys():
        return {}
    scores = record.items["correct"].astype(float).tolist()
    low, high = interval(scores)
    return {"accuracy_low": low, "accuracy_high": high} | ({"accuracy": sum(scores) / len(scores)} if metric else {})


def _column(values: Sequence[Any]) -> pd.Series:
    """Settings that are whole numbers stay so where some runs have none; lists are JSON, to group runs by."""
    plain = [json.dumps(v) if isinstance(v, list) else printable(v) if isinstance(v, str) else v for v in values]
    known = [value for value in plain if value is not None]
    gaps = known and len(known) < len(plain) and all(is_whole(value) for value in known)
    return pd.Series(plain, dtype="Int64") if gaps else pd.Series(plain)
