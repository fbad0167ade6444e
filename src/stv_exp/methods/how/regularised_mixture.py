"""A mixture that has to earn its insertions: a prior from how locations rank, and prices of inserting and of doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stv_exp.errors import StvError
from stv_exp.methods.choice import How, What, Where
from stv_exp.methods.how.mixture import Mixture
from stv_exp.methods.registry import register
from stv_exp.methods.search import Problem

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.bank import Bank
    from stv_exp.data.task import Example


@register("regularised_mixture")
class RegularisedMixture(Mixture):
    """A mixture with `policy.prior`, `policy.sparsity` and `policy.entropy`; insertions below `policy.threshold` go."""

    reads = (*Mixture.reads, "policy.prior", "policy.sparsity", "policy.entropy", "policy.threshold")

    def start(self, bank: Bank) -> Tensor:
        logits = super().start(bank)
        if prior := self.config.policy.prior:
            assert bank.scores is not None, "of a where that ranks, see `needs`"
            scores = bank.scores[tuple(bank.locations.T)]
            logits[:, -1] -= prior * (scores - scores.mean()) / (scores.std(correction=0) + 1e-8)
        return logits

    def step(self, problem: Problem, queries: Sequence[Example]) -> Tensor:
        return super().step(problem, queries) + self.price(problem.logits)

    def price(self, logits: Tensor) -> Tensor:
        """Of the mean share that is inserted and the mean entropy, beside the likelihood (scalar)."""
        from stv_exp.methods import categorical

        policy = self.config.policy
        inserted = 1 - logits.softmax(-1)[:, -1].mean() if self.may_decline else 0
        return policy.sparsity * inserted + policy.entropy * categorical.entropy(logits)

    def inserted(self, logits: Tensor) -> Tensor:
        """Shares `[K, C]`, with all of it left to what is inserted at by less than `policy.threshold`."""
        shares = super().inserted(logits)
        if threshold := self.config.policy.threshold:
            little = 1 - shares[:, -1] < threshold
            shares[little] = shares.new_tensor([0.0] * (shares.shape[1] - 1) + [1.0])
        return shares

    def needs(self, where: Where, what: What, how: How) -> str | None:
        if not self.config.policy.prior or (type(where).scores is not Where.scores and not what.moves_to):
            return None
        return "a where that ranks, such as where=sensitivity with all of the model's locations, or policy.prior=0"

    def check(self) -> None:
        super().check()
        weighed = [key for key in ("prior", "sparsity", "threshold") if getattr(self.config.policy, key)]
        if weighed and not self.may_decline:
            raise StvError(
                f"policy.{weighed[0]} weighs insertions against leaving a location alone; set bank.identity=true."
            )
