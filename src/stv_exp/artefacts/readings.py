"""What a classifier reads of the support, and what it keeps of that."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stv_exp.artefacts.base import Artefact


@dataclass(frozen=True, eq=False)
class Readings(Artefact):
    """Activations of N support queries alone, `[N, L, H, D]` at heads, `[N, L, D]` at the other sites, with labels."""

    activations: Tensor
    labels: list[str]
    query_ids: list[str]
    site: str

    @property
    def grid(self) -> tuple[int, ...]:
        """Locations by their place in order: (L, H), or (L,) at sites without heads."""
        return tuple(self.activations.shape[1:-1])


@dataclass(frozen=True, eq=False)
class Classes:
    """`means [K, C, D]` of C labels at K places of the grid, `[K, 2]` or `[K, 1]`, the best one first."""

    labels: list[str]
    places: Tensor
    means: Tensor
    site: str
