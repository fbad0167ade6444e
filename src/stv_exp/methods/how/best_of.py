"""Best of N: random choices, of which the best is kept; what a search has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stv_exp.methods import categorical
from stv_exp.methods.incumbent import Incumbent
from stv_exp.methods.registry import register
from stv_exp.methods.search import Problem

if TYPE_CHECKING:
    from torch import Tensor


@register("best_of")
class BestOf(Incumbent):
    """Best of N: `policy.samples` random choices a step against the best so far, on the step's queries."""

    drawn_at_random = True

    def others(self, problem: Problem, held: Tensor) -> Tensor:
        """Choices drawn uniformly at every location."""
        alike = problem.logits.detach() * 0
        return categorical.sample(alike, 1, self.config.policy.samples, problem.generator)[0]
