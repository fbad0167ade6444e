"""The cross-entropy method (Rubinstein 1999): move the distribution towards the best of what it drew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stv_exp.methods.registry import register
from stv_exp.methods.search import Problem, Search

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.bank import Bank
    from stv_exp.data.task import Example

_ELITE = 0.25  # of the samples
_KEPT = 0.7  # of the old distribution at each step
_LEAST = 1e-3  # probability of a candidate that no elite holds


@register("cross_entropy")
class CrossEntropyMethod(Search):
    """Cross-entropy method, one categorical a location, moved towards the best quarter of each step's samples."""

    reads = (*Search.reads, "policy.samples", "bank.identity")

    def start(self, bank: Bank) -> Tensor:
        k, m = bank.centroids.shape[:2]
        return bank.centroids.new_zeros(k, m + self.may_decline)

    def step(self, problem: Problem, queries: Sequence[Example]) -> None:
        import torch

        from stv_exp.methods import categorical

        samples, logits = self.config.policy.samples, problem.logits.detach()
        drawn = categorical.sample(logits, 1, samples, problem.generator)
        reference = categorical.sample(self.start(problem.bank), 1, 1, problem.generator)
        rewards = problem.rewards(queries, torch.cat([drawn, reference], 1)).mean(0)
        elite = drawn[0, rewards[:samples].topk(max(1, round(_ELITE * samples))).indices]
        held = torch.nn.functional.one_hot(elite, logits.shape[-1]).float().mean(0)
        moved = _KEPT * logits.softmax(-1) + (1 - _KEPT) * held
        problem.record(
            reward=rewards[:samples].mean().item(),
            reward_random=rewards[samples].item(),
            entropy=categorical.entropy(logits).item(),
        )
        logits.copy_(moved.clamp(min=_LEAST).log())

    def watched(self, steps: int) -> int:
        return steps * self.config.policy.queries
