"""What a search ends with: one candidate a location, a mixture of them, or none, and how it went."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stv_exp.artefacts.base import Artefact


@dataclass(frozen=True, eq=False)
class Chosen(Artefact):
    """The insertion that was chosen, location by location, and how the search went.

    `choices [K]` index the candidates (M: leave this location alone), `active [K]` is false where it is left alone;
    `locations` and `vectors` are those of the active ones. Where candidates are mixed, `choices` are those of the
    largest share, and the active locations' own activations keep 1 - `weights`. `history` holds one list a column.
    `candidate_evaluations` counts what the search learned from or selected by; `scoring` is how they were scored (tree,
    repeat or full; empty without a search).
    """

    choices: Tensor
    locations: Tensor
    vectors: Tensor
    active: Tensor
    history: dict[str, list[float]]
    candidate_evaluations: int
    scoring: str
    weights: Tensor | None = None
