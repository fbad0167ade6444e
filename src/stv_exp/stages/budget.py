"""What `budget` pays for: token-forwards of everything that a method does before it is evaluated."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from statistics import fmean

from stv_exp.config import Config
from stv_exp.errors import StvError
from stv_exp.methods.search import Search


def affordable(config: Config, spent: float, cost: Callable[[int], float], most: int) -> int:
    """As many steps as the budget pays for once `spent` token-forwards are gone, at most `most`.

    `cost` of so many steps never falls. Raises `StvError` where not one step is paid for.
    """
    if not config.budget:
        return most
    least = min(1, most)
    if spent + cost(least) > config.budget:
        raise StvError(
            f"budget={config.budget} is too little for {config.method.name}: {spent:,.0f} token-forwards come before "
            f"its first step, which takes {cost(least):,.0f}; raise budget, or lower what comes before "
            "(scan.pairs, scan.shots, train.shots)."
        )
    return bisect_right(range(least, most + 1), config.budget - spent, key=cost) - 1 + least


def search_cost(
    how: Search,
    n_locations: int,
    prefixes: Mapping[str, int],
    answers: Mapping[str, int],
    asked: Sequence[Sequence[str]],
) -> Callable[[int], float]:
    """Token-forwards of so many steps of a search and of its decision, at most.

    By the tokens of each support query's prefix and of its answer behind it, and the queries that each step asks.
    """
    n = len(prefixes)
    told = list(accumulate((sum(answers[query] for query in batch) for batch in asked), initial=0))
    queries = list(accumulate(map(len, asked), initial=0))

    def cost(steps: int) -> float:
        prefix = _longest(prefixes.values(), how.asked(steps, n))
        other = _longest(answers.values(), how.final_queries(n))
        return how.token_forwards(steps, n, n_locations, prefix, told[steps] / max(1, queries[steps]), other)

    return cost


def _longest(lengths: Iterable[int], n: int) -> float:
    """Mean of the `n` longest ones, at least of one."""
    return fmean(sorted(lengths, reverse=True)[: max(1, n)])


def check(config: Config, spent: float) -> None:
    """Raise `StvError` where the budget is overdrawn by what has no steps to save."""
    affordable(config, spent, lambda _: 0.0, 0)
