"""One location alone, the best on the support (task vectors, Hendel et al. 2023; the layer of a function vector)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stv_exp.methods.registry import register
from stv_exp.methods.search import Problem
from stv_exp.methods.selection import Selection

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.bank import Bank
    from stv_exp.data.task import Example

_QUERIES, _BRANCHES = 8, 64  # that are scored together: all locations of a large model would not fit
log = logging.getLogger(__name__)


@register("best_location")
class BestLocation(Selection):
    """Each location alone, by its mean reward on `policy.selection_items` support queries; the best one is kept."""

    reads = ("policy.reward", "policy.selection_items", "policy.cache_bytes", "insertion.when")
    location_search = ("scan", "bank", "policy")

    def start(self, bank: Bank) -> Tensor:
        """There is nothing to learn."""
        return bank.centroids.new_zeros(0)

    def affordable_steps(self, n_support: int, n_locations: int, tokens: float) -> int:
        return 0

    def decide(self, problem: Problem) -> Tensor:
        import torch

        k = len(problem.bank.locations)
        alone = 1 - torch.eye(k, dtype=torch.long)  # 0 inserts, 1 leaves alone
        rewards = torch.cat([self._rewards(problem, part, alone) for part in self.judges(problem, _QUERIES)]).mean(0)
        found = int(rewards.argmax())
        place = problem.bank.locations[found].tolist()
        log.info("Best of %d locations alone: %s, reward %.3f (mean %.3f)", k, place, rewards[found], rewards.mean())
        return alone[found]

    def _rewards(self, problem: Problem, queries: list[Example], choices: Tensor) -> Tensor:
        """`[Q, K]` of choices `[K, K]`."""
        import torch

        return torch.cat([problem.rewards(queries, some[None]) for some in choices.split(_BRANCHES)], 1)

    def final_candidates(self, n_locations: int) -> int:
        return n_locations

    def final_passes(self, n_support: int, n_locations: int) -> int:
        """Of each few queries the prefixes, which no step has asked for, what their branches share, and these."""
        return -(-self.final_queries(n_support) // _QUERIES) * (2 - (-n_locations // _BRANCHES))
