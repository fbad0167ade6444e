"""A mixture of candidates at every location, its shares found by gradient: nothing is drawn, nothing made discrete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stv_exp.methods.gradient import Gradient
from stv_exp.methods.registry import register
from stv_exp.methods.search import Problem

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.data.task import Example


@register("mixture")
class Mixture(Gradient):
    """Gradient of the answer's likelihood in a softmax over candidates (and "leave it alone"); the mixture is inserted.

    A location's vector is the candidates' weighted mean, and blends with the location's own activation by what is left.
    """

    def shares(self, problem: Problem, queries: int) -> Tensor:
        return problem.logits.softmax(-1)[None, None]

    def looked(self, problem: Problem, queries: Sequence[Example]) -> list[float]:
        """Of the mixture, and of the one that the search starts with."""
        import torch

        both = torch.stack([self.decide(problem), self.inserted(self.start(problem.bank).to(problem.logits))])
        with torch.no_grad():
            return problem.mixed_rewards(queries, both[None]).mean(0).tolist()

    def decide(self, problem: Problem) -> Tensor:
        """Shares `[K, C]`."""
        return self.inserted(problem.logits.detach())

    def inserted(self, logits: Tensor) -> Tensor:
        """The shares `[K, C]` that logits stand for once nothing is learned from them any more."""
        return logits.softmax(-1)
