"""What a classifier is: a `How` that reads activations and answers with a label."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from stv_exp.errors import StvError
from stv_exp.methods.choice import Grid, How, What, Where
from stv_exp.methods.counts import check_k

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.readings import Classes, Readings


class Classifier(How):
    """A `How` of methods that insert nothing: a query's label is found from its activations, one forward each.

    It learns from `scan.per_label` support examples of each label, each asked alone as the query is.
    """

    classifies = True
    reads: ClassVar[tuple[str, ...]] = ("method.k",)
    location_search = ("scan",)

    def learn(self, readings: Readings) -> Classes:
        """The locations to read and what tells the labels apart there."""
        raise NotImplementedError

    def label(self, classes: Classes, activations: Tensor) -> Tensor:
        """The number of each query's label `[B]`, by its activations `[B, K, D]` at the classes' locations."""
        raise NotImplementedError

    def needs(self, where: Where, what: What, how: How) -> str | None:
        return None if not where.inserts and what.name == "none" else "where=none and what=none: nothing is inserted"

    def check(self) -> None:
        if shots := self.config.method.shots:
            raise StvError(f"method.how={self.name} reads queries that stand alone; set method.shots={shots} to 0.")

    def check_grid(self, grid: Grid) -> None:
        check_k(self.config, grid)
