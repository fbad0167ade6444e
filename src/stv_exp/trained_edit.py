"""A trained edit: what a training found, saved, inserted and refused as a task vector is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stv_exp.artefacts.base import Artefact
from stv_exp.artefacts.metadata import check_metadata
from stv_exp.artefacts.values import fits, one_line, sizes
from stv_exp.errors import StvError
from stv_exp.hub import OnHub
from stv_exp.methods.registry import choices, find
from stv_exp.methods.trained import Trained
from stv_exp.models.attached import Attach, Sites, attached, shape_of
from stv_exp.models.moments import Moments
from stv_exp.models.sites import find_site, unwrapped


@dataclass(frozen=True, eq=False, repr=False)
class TrainedEdit(Artefact, OnHub):
    """The `edit` (its name among the choices), its `parameters` by name, L edited layers first, and its `options`.

    `metadata` says where it comes from (model, method, dataset, seed, run), and under `heads` what it fits; `history`
    holds the curves of its training, one list a column.
    """

    noun: ClassVar[str] = "trained edit"
    file: ClassVar[str] = "trained_edit.safetensors"

    edit: str
    parameters: dict[str, Tensor]
    options: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {**self.kind.knows}
        if self.options.keys() != known.keys() or not all(fits(self.options[k], t) for k, t in known.items()):
            raise StvError(f"A TrainedEdit of {self.edit} has options other than {', '.join(known)}; train it anew.")
        for name, values in self.parameters.items():
            if not values.is_floating_point() or not torch.isfinite(values).all():
                raise StvError(f"A TrainedEdit has {one_line(name)} that are no finite numbers; train it anew.")
        check_metadata(self.metadata)

    def __repr__(self) -> str:
        made = self.metadata.get("method")
        source = f", {one_line(made)} on {one_line(self.metadata.get('dataset'))}" if made else ""
        return f"TrainedEdit({self.edit}, {self.size} parameters in {len(self.options['layers'])} layers{source})"

    @property
    def size(self) -> int:
        """How many numbers it consists of."""
        return sum(values.numel() for values in self.parameters.values())

    def summary(self) -> str:
        """For its card."""
        layers, kind = len(self.options["layers"]), one_line(self.edit)
        return (
            f"A trained edit ({kind}): {self.size} numbers in {layers} layers that stand for the demonstrations of a "
            "task.\nInserted into the frozen model, they take the place of a many-shot prompt."
        )

    def facts(self) -> dict[str, Any]:
        """For its card: what it is made of."""
        layers = ", ".join(str(layer) for layer in self.options["layers"])
        return {"edit": self.edit, "parameters": self.size, "layers": layers}

    @property
    def kind(self) -> type[Trained]:
        """The class of the edit; one from outside has to be imported already: a file must not choose what runs."""
        module = self.edit.rpartition(".")[0]
        if self.edit not in choices("edit") and module not in sys.modules:
            raise StvError(f"The edit {one_line(self.edit)} is unknown; import the module that has it first.")
        return find("edit", self.edit)  # type: ignore[return-value]

    def check(self, sites: Sites) -> None:
        """Raise `StvError` where this edit was made for a model of another shape."""
        layers, shape = self.options["layers"], fitted(sites)
        made_for = self.metadata.get("heads") or shape
        there = sites("head").layers
        if made_for != shape or not layers or not {*layers} <= {*there} or len({*layers}) < len(layers):
            raise StvError(
                f"The {self.edit} edit was made for {sizes(made_for)} (layers {layers}), but the model has "
                f"{sizes(shape)}; load the model it was made for."
            )
        try:
            expected = self.kind.shapes(shape_of(sites, layers), self.options)
        except (KeyError, ValueError, TypeError) as error:
            raise StvError(f"The {self.edit} edit has options that lead nowhere ({error}); train it anew.") from error
        found = {name: tuple(values.shape) for name, values in self.parameters.items()}
        if found != expected:
            raise StvError(f"The {self.edit} edit has parameters {found} where the model takes {expected}.")

    @contextmanager
    def inserted(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """Within the block, `model` runs with this edit; it ends with the block, also on error.

        `model` is any supported transformers model; batches may be padded on either side, and wrappers (torch.compile,
        PEFT) are looked through. Blocks nest, except that only one edit may change attention itself.
        """
        inner = unwrapped(model)
        sites = partial(find_site, inner, pattern=self.metadata.get("pattern") or "")
        self.check(sites)
        when = self.kind.when(self.options)
        moments = Moments(inner, "every_step" if when == "every_token" else when)
        parts = (self.kind, self.parameters, self.options, lambda: moments.tokens)
        with (
            moments.watched(),
            attached(inner, sites, *parts) as reached,
            moments.doubted(sites("head"), reached),
        ):
            yield model


def attaching(edit: TrainedEdit, model: nn.Module, sites: Sites) -> tuple[Attach, str]:
    """How `edit` is attached to a model where the tokens that it edits are told, and when it acts."""
    edit.check(sites)
    kind = edit.kind

    def attach(tokens: Callable[[], Tensor]) -> AbstractContextManager[Any]:
        return attached(model, sites, kind, edit.parameters, edit.options, tokens)

    return attach, kind.when(edit.options)


def fitted(sites: Sites) -> dict[str, int]:
    """What an edit has to fit, as its metadata says under `heads`."""
    return {**sites("head").shape, "hidden_size": sites("attention").dim}
