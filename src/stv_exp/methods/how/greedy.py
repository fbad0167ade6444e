"""Greedy coordinate search: of several changes at one location each, keep the best if it helps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stv_exp.methods.registry import register
from stv_exp.methods.search import Problem, Search

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.bank import Bank
    from stv_exp.data.task import Example


@register("greedy")
class GreedyCoordinates(Search):
    """Greedy coordinate search: `policy.samples` changes of one location each a step, the best is kept if it helps."""

    reads = (*Search.reads, "policy.samples", "bank.identity")

    def start(self, bank: Bank) -> Tensor:
        """One-hot: everything left alone where that is allowed, else each location's first candidate."""
        k, m = bank.centroids.shape[:2]
        logits = bank.centroids.new_zeros(k, m + self.may_decline)
        logits[:, -1 if self.may_decline else 0] = 1.0
        return logits

    def step(self, problem: Problem, queries: Sequence[Example]) -> None:
        import torch

        logits = problem.logits.detach()
        current = logits.argmax(-1)
        tried = self._changes(logits, current, problem)
        rewards = problem.rewards(queries, torch.cat([current[None], tried])[None]).mean(0)
        best = int(rewards.argmax())
        problem.record(reward=rewards[best].item(), reward_random=rewards[1:].mean().item())
        if best:
            logits.zero_().scatter_(-1, tried[best - 1][:, None], 1.0)

    def step_evaluations(self) -> int:
        return self.config.policy.queries * (self.config.policy.samples + 1)

    def _changes(self, logits: Tensor, current: Tensor, problem: Problem) -> Tensor:
        """Choices `[S, K]` that differ from the current ones at one random location each."""
        import torch

        samples, (k, c) = self.config.policy.samples, logits.shape
        where = torch.randint(k, (samples,), generator=problem.generator)
        shift = torch.randint(1, max(2, c), (samples,), generator=problem.generator)
        tried = current.repeat(samples, 1)
        tried[torch.arange(samples), where] = (current[where] + shift) % c
        return tried
