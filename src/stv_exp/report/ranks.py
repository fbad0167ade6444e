"""How alike two rankings or selections are, and how much of a ranking is its layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_SHUFFLES = 5_000


def kappa(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Agreement of two selections of the same things beyond chance (Cohen, 1960): 1 the same, 0 as by chance.

    NaN where chance alone makes them the same: both hold everything, or nothing.
    """
    observed = (a == b).mean()
    expected = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float((observed - expected) / (1 - expected)) if expected < 1 else float("nan")


def rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's, over the places where both have a number."""
    return float(pd.DataFrame({"a": a.ravel(), "b": b.ravel()}).corr("spearman").to_numpy()[0, 1])


def layer_share(scores: Sequence[NDArray[np.float64]]) -> tuple[float, float, float]:
    """How much of the ranks of `[L, ...]` scores their layers explain: a share, what is chance, and the p of chance.

    The share of the ranks' variance that lies between layers, its mean over the rankings. Chance shuffles places, the
    same way in every ranking, as rankings of one model are no independent draws. NaN, three times, without variance.
    """
    layers = np.repeat(np.arange(len(scores[0])), scores[0][0].size)
    ranks = np.stack([pd.Series(own.ravel()).rank().to_numpy() for own in scores])
    known = ~np.isnan(ranks).any(0)
    ranks, layers = ranks[:, known], layers[known]
    ranks = ranks - ranks.mean(1, keepdims=True)
    ranks = ranks[(ranks**2).sum(1) > 0]
    if not len(ranks):
        return (float("nan"),) * 3
    members = layers[:, None] == np.unique(layers)  # [places, layers]
    share = lambda ranks: (((ranks @ members) ** 2 / members.sum(0)).sum(1) / (ranks**2).sum(1)).mean()  # noqa: E731
    rng = np.random.default_rng(0)
    shuffled = np.array([share(ranks[:, rng.permutation(len(layers))]) for _ in range(_SHUFFLES)])
    own = float(share(ranks))
    return own, float(shuffled.mean()), (int((shuffled >= own - 1e-12).sum()) + 1) / (_SHUFFLES + 1)
