"""What the sensitivity scan finds: the same queries' activations with and without demonstrations."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stv_exp.artefacts.base import Artefact


@dataclass(frozen=True, eq=False)
class Scan(Artefact):
    """Activations of T queries with demonstrations and alone, and the ids that were used.

    `[T, L, H, D]` at heads, `[T, L, D]` at the other sites. They keep the model's dtype, so that a half-precision
    model's take half the memory and no rounding is added.
    """

    with_demonstrations: Tensor
    alone: Tensor
    query_ids: list[str]
    demonstration_ids: list[list[str]]
    site: str = "head"

    @property
    def grid(self) -> tuple[int, ...]:
        """Locations by their coordinates: (L, H), or (L,) at sites without heads."""
        return tuple(self.alone.shape[1:-1])

    @property
    def deltas(self) -> Tensor:
        """What the demonstrations change, `[T, *grid, D]`, in float32."""
        return self.with_demonstrations.float() - self.alone.float()
