"""How sure a mean score and a difference of two are, over the eval items that happened to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054  # the normal distribution's 97.5% quantile
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Comparison:
    """Mean of paired differences over `n` items, its 95% interval and the p of "no difference" (two-sided)."""

    n: int
    difference: float
    low: float
    high: float
    p: float


def interval(scores: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean of scores in 0-1: Wilson's where all are 0 or 1, else a seeded bootstrap's."""
    if _is_binary(scores):
        return wilson(round(sum(scores)), len(scores))
    return _middle(_bootstrap_means(np.array(scores)))


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a share (1927): it stays in 0-1, and is no point at 0 or n successes."""
    share, extra = successes / n, _Z**2 / n
    centre = share + extra / 2
    margin = _Z * sqrt(share * (1 - share) / n + extra / (4 * n))
    return round((centre - margin) / (1 + extra), 12), round((centre + margin) / (1 + extra), 12)


def compare(a: Sequence[float], b: Sequence[float]) -> Comparison:
    """`a - b` over paired scores: exact McNemar where all scores are 0 or 1, else paired bootstrap.

    The interval is the paired bootstrap's either way.
    """
    differences = np.array(a) - np.array(b)
    means = _bootstrap_means(differences)
    p = _mcnemar(differences) if _is_binary([*a, *b]) else _sign_share(means)
    return Comparison(len(differences), float(differences.mean()), *_middle(means), p)


def holm(ps: Sequence[float]) -> list[float]:
    """Values of p corrected for their number, so that the chance of any wrong rejection is theirs (Holm, 1979)."""
    order = np.argsort(ps, kind="stable")
    stepped = np.maximum.accumulate(np.array(ps)[order] * np.arange(len(ps), 0, -1)) if len(ps) else np.array([])
    return np.minimum(1.0, stepped)[np.argsort(order)].tolist()


def _is_binary(scores: Sequence[float]) -> bool:
    return set(scores) <= {0.0, 1.0}


def _bootstrap_means(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means `[_RESAMPLES]` of resamples, drawn as counts of the few values that scores take; always the same."""
    values, counts = np.unique(np.round(scores, 9), return_counts=True)
    n = counts.sum()
    drawn = np.random.default_rng(0).multinomial(n, counts / n, size=_RESAMPLES)
    return np.round(drawn @ values / n, 12)  # sums of thirds that cancel are 0, not 1e-17


def _middle(means: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return low, high


def _mcnemar(differences: NDArray[np.float64]) -> float:
    """Two-sided binomial test of the items that only one of the two got right."""
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    tail = sum(comb(wins + losses, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2 ** (wins + losses))


def _sign_share(means: NDArray[np.float64]) -> float:
    """Twice the smaller share of resamples on the far side of 0, never 0 itself."""
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    return min(1.0, 2 * (int(beyond) + 1) / (len(means) + 1))
