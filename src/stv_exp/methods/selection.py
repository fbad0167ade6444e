"""What searches share that insert each location's one candidate or nothing, and end by asking a few support queries."""

from __future__ import annotations

import random

from stv_exp.data.task import Example
from stv_exp.methods.choice import How, What, Where
from stv_exp.methods.search import Problem, Search


class Selection(Search):
    """Choice 0 inserts a location's candidate, 1 leaves it alone; `policy.selection_items` queries decide."""

    @property
    def may_decline(self) -> bool:
        return True

    def needs(self, where: Where, what: What, how: How) -> str | None:
        return "a what with one candidate a location, such as what=mean" if what.many else None

    def final_queries(self, n_support: int) -> int:
        return min(self.config.policy.selection_items, n_support)

    def judges(self, problem: Problem, size: int) -> list[list[Example]]:
        """The queries that decide, seeded, in parts of `size`."""
        n = self.final_queries(len(problem.support))
        items = random.Random(self.config.seed).sample(problem.support, n)
        return [items[start : start + size] for start in range(0, n, size)]
