"""The activation bank: at each location, the candidates that a search may insert there."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stv_exp.artefacts.base import Artefact


@dataclass(frozen=True, eq=False)
class Bank(Artefact):
    """Locations `[K, 2]`, their candidates `[K, M, D]` and how many activations each candidate stands for `[K, M]`.

    At a `site` without heads locations are `[K, 1]`. `scores` are what all of the site's locations were ranked by,
    `[L, H]` or `[L]` (None: by nothing), NaN in layers that have none.
    """

    locations: Tensor
    centroids: Tensor
    sizes: Tensor
    site: str = "head"
    scores: Tensor | None = None
