"""Values as cells of a table."""

from __future__ import annotations

from typing import Any

import pandas as pd

_SHARES = ("accuracy", "rate", "validation_accuracy", "correct", "gap")
_COUNTS = ("n", "forwards", "bytes", "evaluations", "queries_to_pay", "locations", "seed")


def plain(value: Any) -> str:
    """A value as an axis tells it: `8` for 8.0, `-` for nothing."""
    if not isinstance(value, list) and pd.isna(value):
        return "-"
    return f"{value:g}" if isinstance(value, float) and value.is_integer() else str(value)


def number(value: float, key: str) -> str:
    """A number of the column `key` with as many decimals as say something; `-` for none."""
    return "-" if pd.isna(value) else f"{value:.{_decimals(key)}f}"


def deviated(values: pd.Series, key: str) -> str:
    """Mean and standard deviation, without the latter for one value."""
    if values.empty or values.isna().all():
        return "-"
    return number(values.mean(), key) + (f" ± {number(values.std(), key)}" if len(values) > 1 else "")


def spread(low: float, high: float) -> str:
    """An interval of shares."""
    return f"[{low:.3f}, {high:.3f}]"


def _decimals(key: str) -> int:
    """3 for shares and what is not known, 2 for seconds, 0 for counts; keys by stage are as their totals."""
    words = key.partition(".")[0].split("_")
    if "seconds" in words:
        return 2
    return 0 if words[-1] in _COUNTS or key in _COUNTS or "tokens" in words else 3
