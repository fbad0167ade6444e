"""Attaches an edit with parameters to a running model: hooks at its sites, and transformers' registry for attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stv_exp.errors import StvError
from stv_exp.methods.trained import Attended, Shape, Trained
from stv_exp.models.adapted import adapted, widths
from stv_exp.models.attention import attention_edited
from stv_exp.models.edits import hooked
from stv_exp.models.paths import numbers
from stv_exp.models.sites import Site

Sites = Callable[[str], Site]  # a model's sites by name
Tokens = Callable[[], Tensor | None]  # the tokens `[B, P]` that the forward under way edits; None: none
Attach = Callable[[Callable[[], Tensor]], AbstractContextManager[Any]]  # an edit, of these tokens


def shape_of(sites: Sites, layers: list[int] | None = None) -> Shape:
    """What an edit of these layers (none given: all with heads) is shaped by."""
    heads = sites("head")
    if without := sorted(set(layers or ()) - set(heads.layers)):
        raise StvError(
            f"train.layers={layers} names layer {numbers(without)}, where the model has no heads; choose some of "
            f"{numbers(heads.layers)}."
        )
    return Shape(tuple(layers or heads.layers), heads.n_heads or 1, heads.dim, sites("attention").dim, widths(heads))


@contextmanager
def attached(
    model: nn.Module,
    sites: Sites,
    edit: type[Trained],
    parameters: Mapping[str, Tensor],
    options: Mapping[str, Any],
    tokens: Tokens,
    noise: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Callable[[], int]]:
    """Within the block every forward of the model runs with the edit; gradients flow into `parameters`.

    `tokens` say where edits act that are not of every token; `noise` is added to what is changed. Yields a count of the
    layers that were reached so far.
    """
    rows = {layer: row for row, layer in enumerate(options["layers"])}
    like = _Copies(parameters)
    reached = 0

    def write(site: Site, layer: int, found: Tensor) -> Tensor | None:
        nonlocal reached
        if layer not in rows:
            return None
        reached += 1
        by_head = found if site.n_heads is None else found.unflatten(-1, (site.n_heads, site.dim))
        change = partial(edit.changed, site=site.name, row=rows[layer], p=like(found), options=options)
        new = _at(None if edit.when(options) == "every_token" else tokens(), edit.when(options), by_head, change)
        new = new.reshape(found.shape)
        return new if noise is None else noise(new)

    def attend(layer: int, seen: Attended) -> Tensor:
        nonlocal reached
        if layer not in rows:
            return seen.out
        reached += 1
        exact = replace(seen, out=seen.out.float(), queries=seen.queries.float())
        return edit.attended(exact, rows[layer], like(exact.out), options).to(seen.out.dtype)

    def reach() -> None:
        nonlocal reached
        reached += 1

    with ExitStack() as stack:
        for name in edit.sites(options):
            site = sites(name)
            stack.enter_context(hooked(site, partial(write, site)))
        if edit.attends:
            stack.enter_context(attention_edited(model, sites("head"), attend))
        if edit.adapts:
            stack.enter_context(adapted(model, sites("head"), rows, parameters, reach))
        yield lambda: reached


def _at(tokens: Tensor | None, when: str, found: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`found [B, T, ...]` with `change` applied to every token, or to `tokens [B, P]` alone."""
    if when == "every_token":
        return change(found)
    if tokens is None:
        return found
    index = (torch.arange(len(found), device=found.device)[:, None], tokens.to(found.device))
    return found.index_put(index, change(found[index]))


class _Copies:
    """Parameters on the device and in the dtype of activations, copied once for each."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.parameters = parameters
        self._made: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}

    def __call__(self, found: Tensor) -> dict[str, Tensor]:
        key = (found.device, found.dtype)
        if key not in self._made:
            self._made[key] = {name: parameter.to(found) for name, parameter in self.parameters.items()}
        return self._made[key]
