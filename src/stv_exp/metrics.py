"""Metrics on strings, each in 0-1."""

from __future__ import annotations

from collections.abc import Sequence


def normalise(text: str) -> str:
    """Lower case, single spaces, no closing full stop."""
    return " ".join(text.lower().split()).rstrip(".")


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 where the prediction equals one of the answers after `normalise`, else 0."""
    return float(normalise(prediction) in {normalise(answer) for answer in answers})
