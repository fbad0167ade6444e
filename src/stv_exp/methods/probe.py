"""What a `Where` that asks the model is handed to ask it with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.data.prompts import Prompt


class Probe(Protocol):
    """Prompts with demonstrations, and what the model makes of them when one location is replaced."""

    def prompts(self, n: int) -> list[Prompt]:
        """`n` support queries behind `scan.shots` demonstrations each, drawn apart from the scan's."""
        ...

    def probabilities(self, prompts: Sequence[Prompt], vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Of the first token of each prompt's answer: `[N, *grid]` with one location replaced, `[N]` with none.

        A location is replaced at the last prompt token by its vector of `vectors [*grid, D]`.
        """
        ...
