"""Values as cells of a table."""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd

from stv_exp.report.text import in_size

_NUMBER = re.compile(r"[-+<[\],.±%\d\s]*")  # `0.950 ± 0.010`, `[0.91, 0.98]`, `< 0.001`, `-` and nothing
_TAKEN = ("-", "True", "False")
_EXACT = 2**53  # below which a float is the whole number that it looks like
_COUNTS = ("n", "forwards", "bytes", "evaluations", "queries_to_pay", "locations", "seed")


def plain(value: Any) -> str:
    """A value as an axis tells it: `8` for 8.0, `"8"` for a text, `-` for nothing; no two values look the same."""
    if isinstance(value, str):
        return json.dumps(value) if value in _TAKEN or not in_size(value)[0] else value
    if not isinstance(value, list) and pd.isna(value):
        return "-"
    whole = isinstance(value, float) and value.is_integer() and abs(value) < _EXACT
    return str(int(value)) if whole else str(value)


def number(value: float, key: str) -> str:
    """A number of the column `key` with as many decimals as say something; `-` for none."""
    return "-" if pd.isna(value) else f"{value:.{_decimals(key)}f}"


def deviated(values: pd.Series, key: str) -> str:
    """Mean and standard deviation, without the latter for one value."""
    if values.empty or values.isna().all():
        return "-"
    return number(values.mean(), key) + (f" ± {number(values.std(), key)}" if len(values) > 1 else "")


def is_number(cell: str) -> bool:
    """Whether a cell stands in a column of numbers."""
    return _NUMBER.fullmatch(cell) is not None


def probability(p: float) -> str:
    """A p of three decimals, which is never printed as 0."""
    return "< 0.001" if p < 0.001 else number(p, "p")


def spread(low: float, high: float) -> str:
    """An interval of shares."""
    return f"[{low:.3f}, {high:.3f}]"


def _decimals(key: str) -> int:
    """3 for shares and what is not known, 2 for seconds, 0 for counts; keys by stage are as their totals."""
    words = key.partition(".")[0].split("_")
    if "seconds" in words:
        return 2
    return 0 if words[-1] in _COUNTS or key in _COUNTS or "tokens" in words else 3
