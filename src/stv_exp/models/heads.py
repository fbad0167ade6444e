"""Attention heads of a Hugging Face decoder: where they are, how to read them, how to overwrite them.

A head activation is a head's slice of the *input* of its layer's output projection (`o_proj`): everything
here is a forward pre-hook on those projections, so their weight and bias act on it as on any input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from stv_exp.errors import StvError

_ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")
_PROJECTION_NAMES = ("o_proj", "out_proj", "dense", "c_proj", "wo")
_HEAD_COUNT_NAMES = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_NOT_THE_DECODER = ("vision", "visual", "image", "encoder", "perceiver", "resampler", "audio")


@dataclass(frozen=True)
class Heads:
    """The output projections of the decoder's L layers, each with an input of `n_heads * head_dim`.

    `pattern` is their path in the model, `{layer}` standing for the layer's number.
    """

    projections: tuple[nn.Module, ...]
    n_heads: int
    head_dim: int
    pattern: str

    @property
    def n_layers(self) -> int:
        return len(self.projections)

    def __len__(self) -> int:
        return self.n_layers * self.n_heads

    def __str__(self) -> str:
        return f"{self.n_layers} layers x {self.n_heads} heads of {self.head_dim} at {self.pattern}"

    def all_locations(self) -> Tensor:
        """Every (layer, head), `[L * H, 2]`."""
        layers, heads = torch.arange(self.n_layers), torch.arange(self.n_heads)
        return torch.cartesian_prod(layers, heads)


def find_heads(model: nn.Module, pattern: str = "") -> Heads:
    """Locate the heads of a transformers model, by inspection or by a pattern such as `h.{layer}.attn.c_proj`.

    Raises `StvError` that names the model where they cannot be found.
    """
    pattern = pattern or _inspect(model)
    projections = _resolve(model, pattern)
    widths = {_input_width(p) for p in projections}
    n_heads = _head_count(model)
    if len(widths) != 1 or None in widths or (width := widths.pop() or 0) % n_heads:
        raise StvError(
            f"The heads of {type(model).__name__} cannot be read at {pattern}: its modules must be linear layers with "
            f"one input width that its {n_heads} heads divide; set model.heads.pattern to the output projections."
        )
    # Read from the projection: head_dim is a setting of its own in many families, not hidden_size / heads.
    return Heads(projections, n_heads, width // n_heads, pattern)


def _resolve(model: nn.Module, pattern: str) -> tuple[nn.Module, ...]:
    """The modules at `pattern` for layer 0, 1, ... as far as there are any."""
    found: list[nn.Module] = []
    modules = dict(model.named_modules())
    while (name := pattern.replace("{layer}", str(len(found)))) in modules and len(found) < len(modules):
        found.append(modules[name])
    if "{layer}" not in pattern or not found:
        raise StvError(
            f"model.heads.pattern={pattern} matches nothing in {type(model).__name__}; "
            "it needs {layer} where the layer's number stands, as in transformer.h.{layer}.attn.c_proj."
        )
    return tuple(found)


def _inspect(model: nn.Module) -> str:
    """The pattern of the longest list of layers that each have an attention with an output projection."""
    candidates: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(part in name.lower() for part in _NOT_THE_DECODER):
            paths = {_projection_path(layer) for layer in module}
            if len(paths) == 1 and (path := paths.pop()):
                candidates[f"{name}.{{layer}}.{path}"] = len(module)
    if not candidates:
        raise StvError(
            f"No attention output projections were found in {type(model).__name__}: no list of layers has one of "
            f"{', '.join(_PROJECTION_NAMES)} in its attention; set model.heads.pattern to where they are."
        )
    return max(candidates, key=lambda path: candidates[path])


def _projection_path(layer: nn.Module) -> str | None:
    """Path of a decoder layer's output projection within the layer."""
    for attention in _ATTENTION_NAMES:
        for projection in _PROJECTION_NAMES:
            if hasattr(getattr(layer, attention, None), projection):
                return f"{attention}.{projection}"
    return None


def _input_width(projection: nn.Module) -> int | None:
    """Features that a projection reads; GPT-2's Conv1D keeps its weight as [in, out]."""
    if isinstance(projection, Conv1D):
        return projection.nx
    return getattr(projection, "in_features", None)


def _head_count(model: nn.Module) -> int:
    config: Any = model.config
    config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    found = [count for name in _HEAD_COUNT_NAMES if isinstance(count := getattr(config, name, None), int)]
    if not found:
        raise StvError(
            f"The config of {type(model).__name__} names no head count ({', '.join(_HEAD_COUNT_NAMES)}); "
            "the model cannot be used."
        )
    return found[0]


def last_positions(attention_mask: Any, batch: int, length: int, device: torch.device) -> Tensor:
    """Index `[B]` of each row's last real token among the `length` newest ones, whichever side is padded.

    A mask that is none `[B, T]` (static caches bring ready-made ones) says nothing of padding: the last index then.
    """
    if length == 1 or not isinstance(attention_mask, Tensor) or attention_mask.dim() != 2:
        return torch.full((batch,), length - 1, device=device)
    return length - 1 - attention_mask[:, -length:].flip(1).long().argmax(1)


@contextmanager
def captured(heads: Heads, positions: Tensor) -> Iterator[list[Tensor]]:
    """Record the head activations `[B, H, D]` of each layer in turn at token `positions` `[B]`.

    Raises `StvError` at the end of the block where a forward has not passed through every projection.
    """
    rows = torch.arange(len(positions), device=positions.device)
    activations: list[Tensor] = []

    def read(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        here = args[0].device  # of several, with a device map
        found = args[0][rows.to(here), positions.to(here)]
        activations.append(found.unflatten(-1, (heads.n_heads, heads.head_dim)).detach().clone())

    with _pre_hooks([(projection, read) for projection in heads.projections]):
        yield activations
    if len(activations) != heads.n_layers:
        raise unhooked(heads, len(activations))


@dataclass(frozen=True)
class Insertion:
    """What to write where: `locations [K, 2]` and `vectors [..., K, D]`, `...` for rows and tokens.

    `active [..., K]` leaves a location alone where it is false; `mode` is `replace` or `add`.
    """

    locations: Tensor
    vectors: Tensor
    active: Tensor | None = None
    mode: str = "replace"

    def map(self, change: Callable[[Tensor], Tensor]) -> Insertion:
        """The same with `change` applied to vectors and activity, whose leading dimensions are alike."""
        return replace(self, vectors=change(self.vectors), active=None if self.active is None else change(self.active))

    def at_layer(self, layer: int) -> Insertion | None:
        """The part of this insertion that concerns one layer, or None."""
        here = (self.locations[:, 0] == layer).nonzero().flatten()
        if not len(here):
            return None
        active = None if self.active is None else self.active[..., here]
        return replace(self, locations=self.locations[here], vectors=self.vectors[..., here, :], active=active)

    def at_query(self, query: int) -> Insertion:
        """The part `[1, S, K, D]` that concerns one query."""
        return self.map(lambda t: t[query : query + 1] if len(t) > 1 else t)

    def like(self, activations: Tensor) -> Insertion:
        """The same insertion on the device and in the dtype of `activations`."""
        device = activations.device
        active = None if self.active is None else self.active.to(device)
        return replace(self, locations=self.locations.to(device), vectors=self.vectors.to(activations), active=active)


@contextmanager
def inserted(heads: Heads, insertion: Insertion, positions: Callable[[], Tensor | None]) -> Iterator[Callable[[], int]]:
    """Apply `insertion` in every forward at the token indices `[B, P]` that `positions` gives (None: nowhere).

    Yields a count of the layers written to so far, for callers who doubt that the hooks ran.
    """
    written = 0

    def writer(part: Insertion) -> Callable[..., tuple[Tensor, ...] | None]:
        def write(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            nonlocal part, written
            if (tokens := positions()) is None:
                return None
            part = part.like(args[0])  # a copy in the first forward only
            written += 1
            return (_written(heads, part, args[0], tokens.to(args[0].device)), *args[1:])

        return write

    parts = [(projection, insertion.at_layer(layer)) for layer, projection in enumerate(heads.projections)]
    with _pre_hooks([(projection, writer(part)) for projection, part in parts if part is not None]):
        yield lambda: written


def _written(heads: Heads, part: Insertion, activations: Tensor, tokens: Tensor) -> Tensor:
    """`activations [B, T, H * D]` with one layer's part written at `tokens [B, P]`, in place if no gradient flows."""
    if activations.requires_grad or (activations.is_inference() and not torch.is_inference_mode_enabled()):
        activations = activations.clone()
    by_head = activations.unflatten(-1, (heads.n_heads, heads.head_dim))
    rows = torch.arange(len(tokens), device=tokens.device)[:, None, None]
    index = (rows, tokens[:, :, None], part.locations[:, 1])
    if part.mode == "replace" and part.active is None:
        by_head[index] = part.vectors
        return activations
    old = by_head[index]
    new = old + part.vectors if part.mode == "add" else part.vectors
    if part.active is not None:
        new = torch.where(part.active[..., None], new, old)
    by_head[index] = new
    return activations


def unhooked(heads: Heads, reached: int) -> StvError:
    """The error for a model whose projections do not run as modules."""
    return StvError(
        f"Only {reached} of {heads.n_layers} output projections at {heads.pattern} ran as modules: fused or quantised "
        "weights that bypass hooks; load the model without them (model.quantization=none, model.attention=eager)."
    )


@contextmanager
def only_logits(model: Any, scored: Tensor) -> Iterator[None]:
    """Within the block vocabulary logits are computed only where `scored [B, T]`, as one row `[1, n, V]`.

    Models without output embeddings of their own compute them all.
    """
    head = model.get_output_embeddings()

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0][scored.to(args[0].device)][None], *args[1:])

    with _pre_hooks([(head, keep)] if head is not None else []):
        yield


@contextmanager
def _pre_hooks(hooks: list[tuple[nn.Module, Callable[..., object]]]) -> Iterator[None]:
    """Hooks that are gone afterwards, also when the body raises."""
    with ExitStack() as stack:
        for module, hook in hooks:
            handle: RemovableHandle = module.register_forward_pre_hook(hook)
            stack.callback(handle.remove)
        yield
