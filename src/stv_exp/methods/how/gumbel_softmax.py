"""Straight-through Gumbel-softmax (Jang et al., arXiv 1611.01144) over the candidates of every location."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stv_exp.methods.gradient import Gradient
from stv_exp.methods.registry import register
from stv_exp.methods.search import Problem

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.data.task import Example


@register("gumbel_softmax")
class GumbelSoftmax(Gradient):
    """Gradient of the answer's likelihood, straight-through Gumbel-softmax over candidates (and "leave it alone")."""

    reads = (*Gradient.reads, "policy.temperature", "policy.final_temperature", "policy.straight_through")

    def shares(self, problem: Problem, queries: int) -> Tensor:
        """Shares `[Q, 1, K, C]` of the candidates; straight-through: one-hot forward, soft backward."""
        import torch

        policy = self.config.policy
        noise = torch.empty(queries, 1, *problem.logits.shape).exponential_(generator=problem.generator).log().neg()
        progress = problem.step / max(1, problem.steps - 1)
        temperature = policy.temperature * (policy.final_temperature / policy.temperature) ** progress
        soft = ((problem.logits + noise.to(problem.logits)) / temperature).softmax(-1)
        if not policy.straight_through:
            return soft
        hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
        return hard + soft - soft.detach()

    def looked(self, problem: Problem, queries: Sequence[Example]) -> list[float]:
        """Of the discrete choice, and of one drawn from the start."""
        import torch

        from stv_exp.methods import categorical

        drawn = categorical.sample(self.start(problem.bank), 1, 1, problem.generator)
        both = torch.cat([problem.logits.detach().argmax(-1)[None, None], drawn], 1)
        return problem.rewards(queries, both).mean(0).tolist()
