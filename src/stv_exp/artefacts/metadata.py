"""A task vector's metadata: where it comes from, and what it fits. It may come from anyone, as a file does."""

from __future__ import annotations

from typing import Any

from stv_exp.artefacts.values import fits, named, one_line, too_deep
from stv_exp.errors import StvError

_GENERATIONS = 8  # of ancestors that a result remembers: v + v doubles them each time

# What is read of it, by the vector and its card; any other may stand beside it.
_TYPES: dict[str, Any] = dict.fromkeys(("model", "revision", "pattern", "dataset", "method", "run", "when"), str)
_TYPES |= {"operation": str, "seed": int, "heads": dict[str, int], "metrics": dict[str, Any]}
_TYPES |= {"made_from": list[dict[str, Any]]}


def check_metadata(metadata: dict[str, Any]) -> None:
    """Raise `StvError` that names the key where something that is read has another type."""
    if too_deep(metadata):
        raise StvError("A TaskVector has metadata that nests too deep; drop the ancestors in made_from.")
    for key, value in metadata.items():
        if key in _TYPES and not fits(value, _TYPES[key] | None):
            raise StvError(
                f"A TaskVector has metadata {key}={one_line(repr(value))}, which is no {named(_TYPES[key])}; "
                "mend that key or leave it out."
            )
    for parent in metadata.get("made_from") or ():
        check_metadata(parent)


def remembered(metadata: dict[str, Any], generations: int = _GENERATIONS) -> dict[str, Any]:
    """Metadata with so many generations of ancestors."""
    kept = {key: value for key, value in metadata.items() if key != "made_from"}
    before = [remembered(parent, generations - 1) for parent in metadata.get("made_from") or ()]
    return kept | ({"made_from": before} if before and generations > 1 else {})
