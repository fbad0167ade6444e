"""Searches by gradient: the shares in which the candidates of a location enter are what is learned.

The branch behind a cached prefix is a token or two long, so a backward pass through it costs two more of the same and
gives the slope for all K x M candidates at once, where REINFORCE learns one number from each evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stv_exp.methods.search import Problem, Search

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.bank import Bank
    from stv_exp.data.task import Example

_DECLINE = 1.0  # the start of "leave it alone": a location has to earn its insertion
_LOOKS = 8  # times in a search that what it has found is scored for the curves,
_ASKED = 2  # on so many of the step's queries


class Gradient(Search):
    """Adam on the logits of the candidates of every location (and of "leave it alone")."""

    reads = (*Search.reads, "policy.lr", "bank.identity")
    location_search = ("scan", "bank", "policy")
    differentiates = True

    def shares(self, problem: Problem, queries: int) -> Tensor:
        """Shares `[Q or 1, 1, K, C]` of the candidates in this step, differentiable in the logits."""
        raise NotImplementedError

    def looked(self, problem: Problem, queries: Sequence[Example]) -> list[float]:
        """Mean rewards of what the search has found, and of the uninformed search."""
        raise NotImplementedError

    def start(self, bank: Bank) -> Tensor:
        from torch.nn.functional import pad

        k, m = bank.centroids.shape[:2]
        return pad(bank.centroids.new_zeros(k, m), (0, int(self.may_decline)), value=_DECLINE)

    def step(self, problem: Problem, queries: Sequence[Example]) -> Tensor:
        from stv_exp.methods import categorical

        loss = -problem.mixed_rewards(queries, self.shares(problem, len(queries))).mean()
        entropy = categorical.entropy(problem.logits).item()
        problem.record(loss=loss.item(), entropy=entropy, **self._curves(problem, queries))
        return loss

    def step_evaluations(self) -> int:
        return self.config.policy.queries

    def watched(self, steps: int) -> int:
        return 2 * min(self.config.policy.queries, _ASKED) * (min(steps, 2 * _LOOKS) + 1)

    def _curves(self, problem: Problem, queries: Sequence[Example]) -> dict[str, float]:
        """What `looked` tells, repeated between looks: each costs branches."""
        names = ("reward", "reward_random")
        last = problem.step == problem.steps - 1
        if problem.step % max(1, problem.steps // _LOOKS) and not last:
            return {name: problem.history[name][-1] for name in names}
        return dict(zip(names, self.looked(problem, queries[:_ASKED]), strict=True))
