"""Searches that hold one choice and try others against it on the same queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from stv_exp.methods.search import Problem, Search

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.bank import Bank
    from stv_exp.data.task import Example


class Incumbent(Search):
    """Of the choice that is held and `policy.samples` others, each step keeps the best on its queries.

    `reward` is that of the choice held before, which these queries have not chosen.
    """

    drawn_at_random: ClassVar[bool] = False  # whether the others are, so that they are what a search has to beat

    reads = (*Search.reads, "policy.samples", "bank.identity")

    def others(self, problem: Problem, held: Tensor) -> Tensor:
        """The choices `[S, K]` to try against the one that is `held [K]`."""
        raise NotImplementedError

    def start(self, bank: Bank) -> Tensor:
        """One-hot: everything left alone where that is allowed, else each location's first candidate."""
        k, m = bank.centroids.shape[:2]
        logits = bank.centroids.new_zeros(k, m + self.may_decline)
        logits[:, -1 if self.may_decline else 0] = 1.0
        return logits

    def step(self, problem: Problem, queries: Sequence[Example]) -> None:
        import torch

        logits = problem.logits.detach()
        held = logits.argmax(-1)
        tried = self.others(problem, held)
        rewards = problem.rewards(queries, torch.cat([held[None], tried])[None]).mean(0)
        best = int(rewards.argmax())
        random = {"reward_random": rewards[1:].mean().item()} if self.drawn_at_random else {}
        problem.record(reward=rewards[0].item(), **random)
        if best:
            logits.zero_().scatter_(-1, tried[best - 1][:, None], 1.0)

    def step_evaluations(self) -> int:
        return self.config.policy.queries * (self.config.policy.samples + 1)
