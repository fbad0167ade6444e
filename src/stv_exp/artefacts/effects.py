"""What a `Where` that asks the model has found."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stv_exp.artefacts.base import Artefact


@dataclass(frozen=True, eq=False)
class Effects(Artefact):
    """One number a location of the scan's grid, `[L, H]` or `[L]`: the higher, the more it matters."""

    scores: Tensor
