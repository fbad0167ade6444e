"""The settings of searches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from stv_exp.ranges import Above0, Many, OneOf, Positive, Range, Share

Price = Annotated[float, Range(0, 1000)]


@dataclass
class PolicyConfig:
    """The search: `steps` steps of `queries` support queries with `samples` candidates each.

    `budget` replaces `steps`: as many as that many token-forwards of candidates pay for (a token through all layers is
    1, a backward pass counts 2; prefixes come on top; 0: no budget). `lr` is Adam's. `reward` is the mean
    log-likelihood of the answer's tokens, all or the first, or ended: with what ends it. `baseline` is standardised or
    leave_one_out. `threshold`: nothing is inserted at a location that is less probable. A softmax over candidates goes
    from `temperature` to `final_temperature`; without `straight_through` its forward is soft too. `cache_bytes` of
    prefixes are kept (0: what fits in half of the free memory).

    `how=regularised_mixture` alone reads `prior`, by how much the logit of "leave it alone" starts lower for a location
    that ranks one standard deviation above the others taken, and two prices in nats of an answer token's likelihood:
    `sparsity` of the mean share inserted, `entropy` of a nat of a location's mean indecision. Its `threshold` is of the
    share inserted. `how=ensemble` has `members`, a divisor of `queries`, each with its own part of them.
    """

    steps: Positive = 600
    queries: Positive = 1
    samples: Positive = 32
    budget: Many = 0
    lr: Above0 = 0.1
    reward: Annotated[str, OneOf("all", "first", "ended")] = "all"
    baseline: str = "standardised"
    threshold: Share = 0.0
    selection_draws: Positive = 10
    selection_items: Positive = 50
    temperature: Above0 = 1.0
    final_temperature: Above0 = 0.2
    straight_through: bool = True
    cache_bytes: Many = 0
    prior: Annotated[float, Range(-1000, 1000)] = 0.0
    sparsity: Price = 0.0
    entropy: Price = 0.0
    members: Positive = 4
