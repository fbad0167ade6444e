"""Reads activations of a running model and overwrites them, at any site, at chosen tokens of every row.

Every edit is linear in what it finds: `x <- keep * x + values`. Replacing keeps nothing, adding keeps all, blending
with weight w keeps 1 - w, and a location that is left alone keeps all and adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stv_exp.errors import StvError
from stv_exp.methods.trained import norm_preserving
from stv_exp.models.sites import Site

MODES = ("replace", "add", "blend")


@dataclass(frozen=True)
class Insertion:
    """What to write where: `locations [K, 2]` (`[K, 1]` at sites without heads), `values [..., K, D]`.

    `...` stands for rows and tokens. `keep [..., K]` is the share of the old activation that stays (None: nothing).
    `norm_preserving` gives the result the length of what it replaces.
    """

    locations: Tensor
    values: Tensor
    keep: Tensor | None = None
    site: str = "head"
    norm_preserving: bool = False

    def map(self, change: Callable[[Tensor], Tensor]) -> Insertion:
        """The same with `change` applied to values and shares, whose leading dimensions are alike."""
        return replace(self, values=change(self.values), keep=None if self.keep is None else change(self.keep))

    def at_layer(self, layer: int) -> Insertion | None:
        """The part of this insertion that concerns one layer, or None."""
        here = (self.locations[:, 0] == layer).nonzero().flatten()
        if not len(here):
            return None
        keep = None if self.keep is None else self.keep[..., here]
        return replace(self, locations=self.locations[here], values=self.values[..., here, :], keep=keep)

    def at_query(self, query: int) -> Insertion:
        """The part `[1, S, K, D]` that concerns one query."""
        return self.map(lambda t: t[query : query + 1] if len(t) > 1 else t)

    def like(self, activations: Tensor) -> Insertion:
        """The same insertion on the device and in the dtype of `activations`."""
        return replace(self.map(lambda t: t.to(activations)), locations=self.locations.to(activations.device))


@dataclass(frozen=True)
class Edit:
    """How a vector enters: `mode` is one of `MODES`, `weights` a number or one a location `[K]`."""

    mode: str = "replace"
    weights: Tensor | float = 1.0
    norm_preserving: bool = False

    def insertion(
        self, locations: Tensor, vectors: Tensor, active: Tensor | None = None, site: str = "head"
    ) -> Insertion:
        """The insertion of `vectors [..., K, D]`; locations where `active [..., K]` is false are left alone."""
        values, keep = self.applied(vectors)
        if active is not None:
            values = values * active[..., None]
            keep = (~active).to(values) if keep is None else torch.where(active, keep, 1.0)
        return Insertion(locations, values, keep, site, self.norm_preserving)

    def applied(self, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Values `[..., K, D]` and kept shares `[..., K]` (None: nothing is kept) of vectors."""
        if self.mode == "replace":
            return vectors, None
        weights = torch.as_tensor(self.weights).to(vectors).expand(vectors.shape[:-1])
        keep = torch.ones_like(weights) if self.mode == "add" else 1 - weights
        return weights[..., None] * vectors, keep


@contextmanager
def inserted(site: Site, insertion: Insertion, positions: Callable[[], Tensor | None]) -> Iterator[Callable[[], int]]:
    """Apply `insertion` in every forward at the token indices `[B, P]` that `positions` gives (None: nowhere).

    Yields a count of the layers written to so far, for callers who doubt that the hooks ran.
    """
    written = 0

    def writer(part: Insertion) -> Callable[[Tensor], Tensor | None]:
        def write(activations: Tensor) -> Tensor | None:
            nonlocal part, written
            if (tokens := positions()) is None:
                return None
            part = part.like(activations)  # a copy in the first forward only
            written += 1
            return _written(site, part, activations, tokens.to(activations.device))

        return write

    parts = [(module, insertion.at_layer(layer)) for layer, module in zip(site.layers, site.modules, strict=True)]
    with _hooks(site, [(module, writer(part)) for module, part in parts if part is not None]):
        yield lambda: written


@contextmanager
def captured(site: Site, positions: Tensor) -> Iterator[list[Tensor]]:
    """Record the activations `[B, H, D]` (`[B, D]` without heads) of each layer in turn at token `positions` `[B]`.

    Raises `StvError` at the end of the block where a forward has not passed through every module.
    """
    rows = torch.arange(len(positions), device=positions.device)
    activations: list[Tensor] = []

    def read(found: Tensor) -> None:
        here = found.device  # of several, with a device map
        last = found[rows.to(here), positions.to(here)]
        activations.append((last if site.n_heads is None else _by_head(site, last)).detach().clone())

    with _hooks(site, [(module, read) for module in site.modules]):
        yield activations
    if len(activations) != site.n_layers:
        raise unhooked(site, len(activations))


def _written(site: Site, part: Insertion, activations: Tensor, tokens: Tensor) -> Tensor:
    """`activations [B, T, H * D]` with one layer's part written at `tokens [B, P]`, in place if no gradient flows."""
    if activations.requires_grad or (activations.is_inference() and not torch.is_inference_mode_enabled()):
        activations = activations.clone()
    by_head = _by_head(site, activations)
    rows = torch.arange(len(tokens), device=tokens.device)[:, None, None]
    heads = part.locations[:, 1] if site.n_heads else torch.zeros_like(part.locations[:, 0])
    index = (rows, tokens[:, :, None], heads)
    if part.keep is None and not part.norm_preserving:
        by_head[index] = part.values
        return activations
    old = by_head[index]
    new = part.values if part.keep is None else part.keep[..., None] * old + part.values
    if part.norm_preserving:
        new = norm_preserving(new, old)
    by_head[index] = new
    return activations


def _by_head(site: Site, activations: Tensor) -> Tensor:
    """A view `[..., H, D]` of activations `[..., H * D]`; sites without heads have one slot."""
    return activations.unflatten(-1, (site.n_heads or 1, site.dim))


def last_positions(attention_mask: Any, batch: int, length: int, device: torch.device) -> Tensor:
    """Index `[B]` of each row's last real token among the `length` newest ones, whichever side is padded.

    A mask that is none `[B, T]` (static caches bring ready-made ones) says nothing of padding: the last index then.
    """
    if length == 1 or not isinstance(attention_mask, Tensor) or attention_mask.dim() != 2:
        return torch.full((batch,), length - 1, device=device)
    return length - 1 - attention_mask[:, -length:].flip(1).long().argmax(1)


def unhooked(site: Site, reached: int) -> StvError:
    """The error for a model whose modules do not run as modules."""
    return StvError(
        f"Only {reached} of {site.n_layers} modules at {site.pattern} ran as modules: fused or quantised "
        "weights that bypass hooks (load the model without: model.quantization=none, model.attention=eager), or layers "
        "that only run with a picture (give each prompt one, or use method.site=head)."
    )


@contextmanager
def only_logits(model: Any, scored: Tensor) -> Iterator[None]:
    """Within the block vocabulary logits are computed only where `scored [B, T]`, as one row `[1, n, V]`.

    Models without output embeddings of their own compute them all.
    """
    head = model.get_output_embeddings()

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0][scored.to(args[0].device)][None], *args[1:])

    with ExitStack() as stack:
        if head is not None:
            stack.callback(head.register_forward_pre_hook(keep).remove)
        yield


@contextmanager
def hooked(site: Site, change: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """Within the block each layer's activations at the site become `change(layer, activations)`; None: as they are."""
    with _hooks(site, [(m, partial(change, layer)) for layer, m in zip(site.layers, site.modules, strict=True)]):
        yield


@contextmanager
def _hooks(site: Site, hooks: Sequence[tuple[nn.Module, Callable[[Tensor], Tensor | None]]]) -> Iterator[None]:
    """Hooks on a site's tensor that are gone afterwards, also when the body raises."""
    register = _on_input if site.name == "head" else _on_output
    with ExitStack() as stack:
        for module, change in hooks:
            stack.callback(register(module, change).remove)
        yield


def _on_input(module: nn.Module, change: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        new = change(args[0])
        return None if new is None else (new, *args[1:])

    return module.register_forward_pre_hook(hook)


def _on_output(module: nn.Module, change: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, Tensor):
            return change(output)
        new = change(output[0])
        return None if new is None else (new, *output[1:])

    return module.register_forward_hook(hook)
