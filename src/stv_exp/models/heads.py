"""Attention heads of a Hugging Face decoder: where they are, how to read them, how to overwrite them.

A head activation is a head's slice of the *input* of its layer's output projection (`o_proj`): everything
here is a forward pre-hook on those projections, so their weight and bias act on it as on any input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from stv_exp.errors import StvError

_PROJECTION_NAMES = ("o_proj", "out_proj", "dense", "c_proj")


@dataclass(frozen=True)
class Heads:
    """The output projections of the decoder's L layers, each with an input of `n_heads * head_dim`."""

    projections: tuple[nn.Linear, ...]
    n_heads: int
    head_dim: int

    @property
    def n_layers(self) -> int:
        return len(self.projections)

    def __len__(self) -> int:
        return self.n_layers * self.n_heads

    def all_locations(self) -> Tensor:
        """Every (layer, head), `[L * H, 2]`."""
        layers, heads = torch.arange(self.n_layers), torch.arange(self.n_heads)
        return torch.cartesian_prod(layers, heads)


def find_heads(model: PreTrainedModel) -> Heads:
    """Locate the heads of a transformers model; raises `StvError` where its decoder cannot be read."""
    decoder = model.get_decoder()
    projections = [_output_projection(layer) for layer in getattr(decoder, "layers", ())]
    found = tuple(p for p in projections if p is not None)
    if not found or len(found) < len(projections):
        raise StvError(
            f"No attention output projections were found in {type(model).__name__}: its decoder needs `layers` "
            f"whose `self_attn` has one of {', '.join(_PROJECTION_NAMES)}."
        )
    n_heads = model.config.get_text_config(decoder=True).num_attention_heads
    # Read from the projection: head_dim is a setting of its own in many families, not hidden_size / heads.
    head_dim = found[0].in_features // n_heads
    return Heads(found, n_heads, head_dim)


def _output_projection(layer: nn.Module) -> nn.Linear | None:
    attention = getattr(layer, "self_attn", None) or getattr(layer, "attn", None)
    return next((getattr(attention, name) for name in _PROJECTION_NAMES if hasattr(attention, name)), None)


def last_positions(attention_mask: Tensor | None, batch: int, length: int, device: torch.device) -> Tensor:
    """Index `[B]` of each row's last real token among the `length` newest ones, whichever side is padded."""
    if attention_mask is None or attention_mask.dim() != 2:
        return torch.full((batch,), length - 1, device=device)
    return length - 1 - attention_mask[:, -length:].flip(1).long().argmax(1)


@contextmanager
def captured(heads: Heads, positions: Tensor) -> Iterator[list[Tensor]]:
    """Record the head activations `[B, H, D]` of each layer in turn at token `positions` `[B]`."""
    rows = torch.arange(len(positions), device=positions.device)
    activations: list[Tensor] = []

    def read(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        activations.append(args[0][rows, positions].unflatten(-1, (heads.n_heads, heads.head_dim)).detach().clone())

    with _pre_hooks([(projection, read) for projection in heads.projections]):
        yield activations


@dataclass(frozen=True)
class Insertion:
    """What to write where: `locations [K, 2]` and `vectors [..., K, D]`, `...` for rows and tokens.

    `active [..., K]` leaves a location alone where it is false; `mode` is `replace` or `add`.
    """

    locations: Tensor
    vectors: Tensor
    active: Tensor | None = None
    mode: str = "replace"

    def at_layer(self, layer: int) -> Insertion | None:
        """The part of this insertion that concerns one layer, or None."""
        here = (self.locations[:, 0] == layer).nonzero().flatten()
        if not len(here):
            return None
        active = None if self.active is None else self.active[..., here]
        return Insertion(self.locations[here], self.vectors[..., here, :], active, self.mode)


@contextmanager
def inserted(heads: Heads, insertion: Insertion, positions: Callable[[], Tensor | None]) -> Iterator[None]:
    """Apply `insertion` in every forward at the token indices `[B, P]` that `positions` gives (None: nowhere)."""

    def writer(part: Insertion) -> Callable[..., tuple[Tensor, ...] | None]:
        def write(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            tokens = positions()
            return None if tokens is None else (_written(heads, part, args[0], tokens), *args[1:])

        return write

    parts = [(projection, insertion.at_layer(layer)) for layer, projection in enumerate(heads.projections)]
    with _pre_hooks([(projection, writer(part)) for projection, part in parts if part is not None]):
        yield


def _written(heads: Heads, part: Insertion, activations: Tensor, tokens: Tensor) -> Tensor:
    """`activations [B, T, H * D]` with one layer's part written at `tokens [B, P]`, in place if no gradient flows."""
    if activations.requires_grad or (activations.is_inference() and not torch.is_inference_mode_enabled()):
        activations = activations.clone()
    by_head = activations.unflatten(-1, (heads.n_heads, heads.head_dim))
    rows = torch.arange(len(tokens), device=tokens.device)[:, None, None]
    index = (rows, tokens[:, :, None], part.locations[:, 1].to(tokens.device))
    vectors = part.vectors.to(activations)
    old = by_head[index]
    new = old + vectors if part.mode == "add" else vectors.expand_as(old)
    if part.active is not None:
        new = torch.where(part.active[..., None].to(tokens.device), new, old)
    by_head[index] = new
    return activations


@contextmanager
def _pre_hooks(hooks: list[tuple[nn.Module, Callable[..., object]]]) -> Iterator[None]:
    """Hooks that are gone afterwards, also when the body raises."""
    with ExitStack() as stack:
        for module, hook in hooks:
            handle: RemovableHandle = module.register_forward_pre_hook(hook)
            stack.callback(handle.remove)
        yield
