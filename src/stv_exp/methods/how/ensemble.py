"""Several mixtures that see different queries, and their mean: an ensemble at the price of one search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stv_exp.errors import StvError
from stv_exp.methods.how.mixture import Mixture
from stv_exp.methods.registry import register
from stv_exp.methods.search import Problem

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.bank import Bank


@register("ensemble")
class Ensemble(Mixture):
    """The mean of `policy.members` mixtures, each learned from its own part of every step's queries.

    Its logits are `[members, K, C]`. A step costs what one mixture's does.
    """

    reads = (*Mixture.reads, "policy.members")

    def start(self, bank: Bank) -> Tensor:
        return super().start(bank).repeat(self.config.policy.members, 1, 1)

    def shares(self, problem: Problem, queries: int) -> Tensor:
        """Shares `[Q, 1, K, C]`: each query's of the member that it belongs to."""
        return problem.logits.softmax(-1).repeat_interleave(queries // self.config.policy.members, 0)[:, None]

    def inserted(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1).mean(0)

    def check(self) -> None:
        super().check()
        queries, members = self.config.policy.queries, self.config.policy.members
        if queries % members:
            raise StvError(
                f"policy.queries={queries} cannot be divided among policy.members={members}; make it a multiple."
            )
