"""What `budget` pays for: token-forwards of everything that a method does before it is evaluated."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from stv_exp.config import Config
from stv_exp.errors import StvError


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


def check(config: Config, spent: float) -> None:
    """Raise `StvError` where the budget is overdrawn by what has no steps to save."""
    affordable(config, spent, lambda _: 0.0, 0)
