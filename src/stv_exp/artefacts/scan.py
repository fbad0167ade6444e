"""What the sensitivity scan finds: the same queries' activations with and without demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stv_exp.artefacts.base import UNSAVED, Artefact


@dataclass(frozen=True, eq=False)
class Scan(Artefact):
    """Activations of T queries with demonstrations and alone, and the ids that were used.

    `[T, L, H, D]` at heads, `[T, L, D]` at the other sites. They keep the model's dtype, so that a half-precision
    model's take half the memory and no rounding is added. `layers` are the numbers that the L layers have in the model,
    some of whose may hold no location (empty, as in older files: 0 to L - 1). `effects` of the grid are a stage of
    their own, which the scan carries to a `Where` that has asked for them.
    """

    with_demonstrations: Tensor
    alone: Tensor
    query_ids: list[str]
    demonstration_ids: list[list[str]]
    site: str = "head"
    layers: list[int] = field(default_factory=list)
    effects: Tensor | None = field(default=None, metadata=UNSAVED)

    @property
    def grid(self) -> tuple[int, ...]:
        """Locations by their place in order: (L, H), or (L,) at sites without heads."""
        return tuple(self.alone.shape[1:-1])

    def numbered(self, places: Tensor) -> Tensor:
        """Places of the grid as locations in the model."""
        return numbered(places, self.layers) if self.layers else places

    def by_layer(self, scores: Tensor) -> Tensor:
        """Scores of the grid in rows by the layers' numbers in the model; NaN where a layer has no location."""
        if self.layers in ([], list(range(len(scores)))):
            return scores
        rows = torch.full((max(self.layers) + 1, *scores.shape[1:]), torch.nan)
        rows[self.layers] = scores.float()
        return rows

    @property
    def deltas(self) -> Tensor:
        """What the demonstrations change, `[T, *grid, D]`, in float32."""
        return self.with_demonstrations.float() - self.alone.float()


def numbered(places: Tensor, layers: Sequence[int]) -> Tensor:
    """Places of a grid `[K, 2]` or `[K, 1]` as locations: the layer's own number in place of its place in order."""
    return torch.cat([torch.tensor(layers)[places[:, :1]], places[:, 1:]], 1)
