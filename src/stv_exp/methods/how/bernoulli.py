"""MTV's mask search (NeurIPS 2024): one Bernoulli a location over inserting its mean or leaving it alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stv_exp.methods.how.reinforce import Reinforce, standardised
from stv_exp.methods.registry import register
from stv_exp.methods.search import Problem, Search
from stv_exp.methods.selection import Selection

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from stv_exp.artefacts.bank import Bank

_START = -1.0
_CERTAIN = 1e-3  # probabilities stay this far from 0 and 1
_EPS = 1e-3  # beside the deviation of the rewards
_BATCH = 32  # of selection queries


@register("bernoulli")
class Bernoulli(Selection, Reinforce):
    """REINFORCE, one Bernoulli a location over its mean or nothing; then the best of several drawn masks (MTV)."""

    reads = (
        *Search.reads,
        "policy.samples",
        "policy.lr",
        "policy.selection_draws",
        "policy.selection_items",
        "policy.threshold",
    )
    location_search = ("scan", "bank", "policy")

    def start(self, bank: Bank) -> Tensor:
        return bank.centroids.new_full((len(bank.locations),), _START)

    def advantage(self, rewards: Tensor) -> Tensor:
        return standardised(rewards, _EPS)

    def sample(self, logits: Tensor, queries: int, samples: int, generator: Generator) -> Tensor:
        return self._drawn(_probability(logits.detach()), queries, samples, generator)

    def log_prob(self, logits: Tensor, choices: Tensor) -> Tensor:
        import torch

        p = _probability(logits)
        return torch.where(choices == 0, p, 1 - p).log().sum(-1)

    def entropy(self, logits: Tensor) -> Tensor:
        p = _probability(logits)
        return -(p * p.log() + (1 - p) * (1 - p).log()).mean()

    def decide(self, problem: Problem) -> Tensor:
        """The best of the drawn masks by reward on a few support queries; a mask below the threshold is never drawn."""
        policy = self.config.policy
        p = problem.logits.detach().sigmoid()  # not clamped as in the steps: what they gave up stays out
        p = p * (p >= policy.threshold)
        draws = self._drawn(p, 1, policy.selection_draws, problem.generator)
        total = sum(problem.rewards(part, draws).sum(0) for part in self.judges(problem, _BATCH))
        return draws[0, total.argmax()]  # type: ignore[union-attr]

    def final_candidates(self, n_locations: int) -> int:
        return self.config.policy.selection_draws

    def final_passes(self, n_support: int, n_locations: int) -> int:
        return -(-self.final_queries(n_support) // _BATCH)

    @staticmethod
    def _drawn(p: Tensor, queries: int, samples: int, generator: Generator) -> Tensor:
        """Choices `[Q, S, K]`: 0 inserts the mean, 1 leaves the location alone."""
        inserted = p.expand(queries, samples, -1).bernoulli(generator=generator).long()
        return 1 - inserted


def _probability(logits: Tensor) -> Tensor:
    return logits.sigmoid().clamp(_CERTAIN, 1 - _CERTAIN)
