"""A task vector: what a search found, and the only thing a user needs to carry to another script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stv_exp.artefacts.base import Artefact
from stv_exp.artefacts.metadata import check_metadata, remembered
from stv_exp.artefacts.values import one_line, sizes
from stv_exp.errors import StvError
from stv_exp.hub import OnHub
from stv_exp.models.edits import MODES, Edit, inserted
from stv_exp.models.moments import Moments
from stv_exp.models.paths import numbers
from stv_exp.models.sites import Site, find_site, unwrapped

WHEN = ("every_step", "prompt")
KEPT = ("model", "revision", "heads", "pattern")  # metadata that arithmetic passes on
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, eq=False, repr=False)
class TaskVector(Artefact, OnHub):
    """Locations `[K, 2]` (layer, head) and the head activations `[K, head_dim]` to insert there.

    At a `site` without heads (attention, mlp, residual) locations are `[K, 1]`, vectors `[K, hidden_size]`. `mode` is
    `replace`, `add` or `blend`; `weights [K]` (1 where None) are the shares of a blend or the factors of an addition.
    `norm_preserving` keeps the length of what is edited. `when` is `every_step` (the prompt and each generated token)
    or `prompt`; a file of 0.2 has it in its metadata. `metadata` says where the vector comes from (model, method,
    dataset), and under `heads` what it fits. Vectors add, subtract and scale: see `__add__`.
    """

    noun: ClassVar[str] = "task vector"
    file: ClassVar[str] = "task_vector.safetensors"

    locations: Tensor
    vectors: Tensor
    mode: str = "replace"
    metadata: dict[str, Any] = field(default_factory=dict)
    weights: Tensor | None = None
    site: str = "head"
    norm_preserving: bool = False
    when: str = ""

    def __post_init__(self) -> None:
        columns = 2 if self.site == "head" else 1
        if self.locations.dim() != 2 or self.locations.shape[1] != columns or self.vectors.dim() != 2:
            what = "[K, 2] and vectors of shape [K, head_dim]" if columns == 2 else "[K, 1] and vectors of shape [K, D]"
            raise StvError(f"A TaskVector needs locations of shape {what}.")
        if not _whole(self.locations) or not isinstance(self.metadata, dict):
            raise StvError("A TaskVector needs whole numbers as locations and a dict as metadata; make it anew.")
        object.__setattr__(self, "locations", self.locations.long())  # what indexing understands
        for name, values in (("vectors", self.vectors), ("weights", self.weights)):
            self._check_values(name, values)
        if self.mode not in MODES:
            raise StvError(f"A TaskVector has the mode {_shown(self.mode)}; choose one of {', '.join(MODES)}.")
        self._check_locations()
        check_metadata(self.metadata)
        object.__setattr__(self, "when", _when(self.when or self.metadata.get("when") or WHEN[0]))

    def __repr__(self) -> str:
        k, made = len(self.locations), self.metadata.get("method")
        source = f", {one_line(made)} on {one_line(self.metadata.get('dataset'))}" if made else ""
        return f"TaskVector({k} x {self.vectors.shape[1]} at {self.site}, {self.mode}, {self.when}{source})"

    def _check_values(self, name: str, values: Tensor | None) -> None:
        if values is None:
            return
        if values.dtype not in _FLOATS or values.dim() != (1 if name == "weights" else 2):
            raise StvError(f"A TaskVector has {name} that are no table of floating-point numbers; make it anew.")
        if len(self.locations) != len(values):
            raise StvError(f"A TaskVector has {len(self.locations)} locations but {len(values)} {name}.")
        if not torch.isfinite(values).all():
            raise StvError(f"A TaskVector has NaN or infinite values in its {name}; make it anew.")

    def _check_locations(self) -> None:
        seen = [tuple(location) for location in self.locations.tolist()]
        for location in seen:
            if min(location) < 0:
                raise StvError(f"A TaskVector has the location {location}; layers and heads count from 0.")
        if len(set(seen)) < len(seen):
            twice = next(location for location in seen if seen.count(location) > 1)
            raise StvError(f"A TaskVector has {_place(twice)} more than once; keep one vector a location.")

    def check(self, site: Site) -> None:
        """Raise `StvError` where this vector was made for a model of another shape."""
        made_for = self.metadata.get("heads") or site.shape
        if made_for != site.shape:
            raise StvError(
                f"The task vector was made for {sizes(made_for)}, but the model has {sizes(site.shape)}; "
                "load the model it was made for."
            )
        last = self.locations.max(0).values.tolist() if len(self.locations) else []
        if any(index >= size for index, size in zip(last, (site.depth, site.n_heads or 1), strict=False)):
            raise StvError(
                f"The task vector uses {_place(last)}, but the model has {sizes(site.shape)}; "
                "load the model it was made for."
            )
        if without := sorted({*self.locations[:, 0].tolist()} - {*site.layers}):
            raise StvError(
                f"The task vector uses layer {numbers(without)}, where the model has none of {site.pattern}; "
                f"its layers with one are {numbers(site.layers)}."
            )
        if len(self.vectors) and self.vectors.shape[1] != site.dim:
            name = "head_dim" if self.site == "head" else "hidden_size"
            raise StvError(
                f"The task vector has {name} {self.vectors.shape[1]}, but the model has {site.dim}; "
                "load the model it was made for."
            )

    def _found(self, model: nn.Module) -> Site:
        pattern = self.metadata.get("pattern") or ""
        try:
            return find_site(model, self.site, pattern)
        except StvError as error:
            raise StvError(f"The task vector's metadata leads nowhere: {error}") if pattern else error from error

    @property
    def edit(self) -> Edit:
        """How the vectors enter at their locations."""
        return Edit(self.mode, 1.0 if self.weights is None else self.weights, self.norm_preserving)

    @contextmanager
    def inserted(self, model: PreTrainedModel, when: str | None = None) -> Iterator[PreTrainedModel]:
        """Within the block, `model` runs with this vector at the last token of every sequence.

        `model` is any supported transformers model; `when` overrides the vector's own. Batches may be padded on either
        side; insertion ends with the block, also on error. Blocks nest, those of one vector too: `add` then adds it
        twice. Wrappers (torch.compile, PEFT) are looked through.
        """
        inner = unwrapped(model)
        site = self._found(inner)
        self.check(site)
        moments = Moments(inner, _when(self.when if when is None else when))
        insertion = self.edit.insertion(self.locations, self.vectors, site=self.site)
        with (
            moments.watched(),
            inserted(site, insertion, lambda: moments.tokens) as written,
            moments.doubted(site, lambda: written() or not len(self.locations)),
        ):
            yield model

    def __add__(self, other: TaskVector) -> TaskVector:
        """Both vectors' locations, sorted by layer and head; where they share one, the activations' sum.

        Raises `StvError` where the two differ in mode, head_dim or model.
        """
        return self._plus(other, 1, "a + b") if isinstance(other, TaskVector) else NotImplemented

    def __sub__(self, other: TaskVector) -> TaskVector:
        """`self + (-other)`: zeros, not gaps, where the two cancel."""
        return self._plus(other, -1, "a - b") if isinstance(other, TaskVector) else NotImplemented

    def __mul__(self, factor: float) -> TaskVector:
        """The same locations with every activation times `factor`."""
        if not isinstance(factor, int | float):
            return NotImplemented
        return replace(self, vectors=self.vectors * factor, metadata=_made(f"{factor} * a", self))

    __rmul__ = __mul__

    def __neg__(self) -> TaskVector:
        return replace(self, vectors=-self.vectors, metadata=_made("-a", self))

    def _plus(self, other: TaskVector, sign: int, operation: str) -> TaskVector:
        _check_combinable(self, other)
        device = self.vectors.device
        vectors = torch.cat([self.vectors, sign * other.vectors.to(device)])
        both = torch.cat([self.locations.to(device), other.locations.to(device)])
        locations, place = both.unique(dim=0, return_inverse=True)
        summed = vectors.new_zeros(len(locations), vectors.shape[1]).index_add(0, place, vectors)
        made = _made(operation, self, other)
        return replace(self, locations=locations, vectors=summed, metadata=made, weights=_weights(self, other, place))

    def summary(self) -> str:
        """For its card."""
        return (
            f"A task vector: {len(self.locations)} activations ({one_line(self.site)}) that stand for the "
            "demonstrations of a task.\nInserted into the frozen model at the last token of a query, they "
            "take the place of a many-shot prompt."
        )

    def facts(self) -> dict[str, Any]:
        """For its card: what it is made of."""
        return {
            "site": self.site,
            "mode": self.mode,
            "when": self.when,
            "locations (K)": len(self.locations),
            "dimension": self.vectors.shape[1],
            "layers": ", ".join(str(layer) for layer in self.locations[:, 0].unique().tolist()),
        }


def _whole(numbers: Tensor) -> bool:
    """Not True and False, which would index as a mask does."""
    return not (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool)


def _shown(value: Any) -> str:
    return one_line(repr(value))


def _when(when: str) -> str:
    if when not in WHEN:
        raise StvError(f"when={_shown(when)} is unknown; choose one of {', '.join(WHEN)}.")
    return when


def _place(location: Sequence[int]) -> str:
    """`layer 3, head 2`."""
    return ", ".join(f"{name} {index}" for name, index in zip(("layer", "head"), location, strict=False))


def _weights(a: TaskVector, b: TaskVector, place: Tensor) -> Tensor | None:
    """Weights of the locations of a sum; raises `StvError` where the two give one location different ones."""
    if a.weights is None and b.weights is None:
        return None
    ones = [torch.ones(len(v.locations)) if v.weights is None else v.weights.cpu() for v in (a, b)]
    both, place = torch.cat(ones), place.cpu()
    weights = torch.zeros(int(place.max()) + 1).index_put((place,), both)
    if not torch.equal(weights[place], both):
        raise StvError("Two task vectors weigh one location differently; combine vectors of the same weights.")
    return weights


def _check_combinable(a: TaskVector, b: TaskVector) -> None:
    traits: list[tuple[str, Any, Any]] = [
        (name, getattr(a, name), getattr(b, name)) for name in ("mode", "site", "when", "norm_preserving")
    ]
    traits += [("head_dim", a.vectors.shape[1], b.vectors.shape[1])]
    traits += [(key, a.metadata.get(key), b.metadata.get(key)) for key in ("model", "heads")]
    for name, one, other in traits:
        if one != other and None not in (one, other):
            raise StvError(
                f"Two task vectors differ in {name} ({one_line(one)} and {one_line(other)}); "
                "combine vectors of one model and one kind."
            )


def _made(operation: str, *parents: TaskVector) -> dict[str, Any]:
    """Metadata of a result: the operation, its parents' metadata, and what they agree on about the model."""
    origins = [remembered(parent.metadata) for parent in parents]
    agreed = {key: origins[0].get(key) for key in KEPT if len({str(origin.get(key)) for origin in origins}) == 1}
    kept = {key: value for key, value in agreed.items() if value is not None}
    return kept | {"operation": operation, "made_from": origins}
