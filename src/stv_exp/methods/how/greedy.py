"""Greedy coordinate search: of several changes at one location each, keep the best if it helps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stv_exp.methods.incumbent import Incumbent
from stv_exp.methods.registry import register
from stv_exp.methods.search import Problem

if TYPE_CHECKING:
    from torch import Tensor


@register("greedy")
class GreedyCoordinates(Incumbent):
    """Greedy coordinate search: `policy.samples` changes of one location each a step, the best is kept if it helps."""

    def others(self, problem: Problem, held: Tensor) -> Tensor:
        """Choices that differ from the held one at one random location each."""
        import torch

        samples, (k, c) = self.config.policy.samples, problem.logits.shape
        where = torch.randint(k, (samples,), generator=problem.generator)
        shift = torch.randint(1, max(2, c), (samples,), generator=problem.generator)
        tried = held.repeat(samples, 1)
        tried[torch.arange(samples), where] = (held[where] + shift) % c
        return tried
