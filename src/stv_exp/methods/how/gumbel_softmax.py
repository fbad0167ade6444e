"""Straight-through Gumbel-softmax (Jang et al., arXiv 1611.01144) over the candidates of every location.

The branch behind a cached prefix is a token or two long, so a backward pass through it costs two more of the same and
gives the slope for all K x M candidates at once, where REINFORCE learns one number from each evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stv_exp.methods.registry import register
from stv_exp.methods.search import Problem, Search

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.bank import Bank
    from stv_exp.data.task import Example

_DECLINE = 1.0  # the start of "leave it alone": a location has to earn its insertion
_LOOKS = 8  # times in a search that the discrete choice is scored for the curves,
_ASKED = 2  # on so many of the step's queries


@register("gumbel_softmax")
class GumbelSoftmax(Search):
    """Gradient of the answer's likelihood, straight-through Gumbel-softmax over candidates (and "leave it alone")."""

    reads = (
        *Search.reads,
        "policy.lr",
        "policy.temperature",
        "policy.final_temperature",
        "policy.straight_through",
        "bank.identity",
    )
    location_search = ("scan", "bank", "policy")
    differentiates = True

    def start(self, bank: Bank) -> Tensor:
        from torch.nn.functional import pad

        k, m = bank.centroids.shape[:2]
        return pad(bank.centroids.new_zeros(k, m), (0, int(self.may_decline)), value=_DECLINE)

    def step(self, problem: Problem, queries: Sequence[Example]) -> Tensor:
        from stv_exp.methods import categorical

        loss = -problem.mixed_rewards(queries, self._shares(problem, len(queries))).mean()
        entropy = categorical.entropy(problem.logits).item()
        problem.record(loss=loss.item(), entropy=entropy, **self._looked(problem, queries))
        return loss

    def step_evaluations(self) -> int:
        return self.config.policy.queries

    def watched(self, steps: int) -> int:
        return 2 * min(self.config.policy.queries, _ASKED) * (min(steps, 2 * _LOOKS) + 1)

    def _shares(self, problem: Problem, queries: int) -> Tensor:
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

    def _looked(self, problem: Problem, queries: Sequence[Example]) -> dict[str, float]:
        """Rewards of the discrete choice and of the uninformed search, repeated between looks: each costs branches."""
        import torch

        from stv_exp.methods import categorical

        names = ("reward", "reward_random")
        last = problem.step == problem.steps - 1
        if problem.step % max(1, problem.steps // _LOOKS) and not last:
            return {name: problem.history[name][-1] for name in names}
        drawn = categorical.sample(self.start(problem.bank), 1, 1, problem.generator)
        both = torch.cat([problem.logits.detach().argmax(-1)[None, None], drawn], 1)
        return dict(zip(names, problem.rewards(queries[:_ASKED], both).mean(0).tolist(), strict=True))
