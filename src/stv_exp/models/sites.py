"""Sites: the places in a decoder layer where activations are read and overwritten.

- head: one attention head, its slice of the *input* of the layer's output projection (`o_proj`), so that the
  projection's weight and bias act on what is written as on any input;
- attention: the attention block's output, after that projection;
- mlp: the MLP's output;
- residual: the residual stream after the layer.

Everything is found from one pattern, the path of the output projections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from stv_exp.errors import StvError

_ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")
_PROJECTION_NAMES = ("o_proj", "out_proj", "dense", "c_proj", "wo")
_MLP_NAMES = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
_HEAD_COUNT_NAMES = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_NOT_THE_DECODER = ("vision", "visual", "image", "encoder", "perceiver", "resampler", "audio")


@dataclass(frozen=True)
class Site:
    """One module in each of the decoder's L layers, and the part of its input or output that is meant.

    With `n_heads` a location is (layer, head) and `dim` the head's width; without, a location is (layer,) and `dim` the
    hidden size. `pattern` is the modules' path in the model, `{layer}` standing for the layer's number.
    """

    name: str
    modules: tuple[nn.Module, ...]
    n_heads: int | None
    dim: int
    pattern: str

    @property
    def n_layers(self) -> int:
        return len(self.modules)

    @property
    def grid(self) -> tuple[int, ...]:
        """Locations by their coordinates: (L, H), or (L,) without heads."""
        return (self.n_layers,) if self.n_heads is None else (self.n_layers, self.n_heads)

    @property
    def shape(self) -> dict[str, int]:
        """What a vector for this site has to fit."""
        if self.n_heads is None:
            return {"n_layers": self.n_layers, "hidden_size": self.dim}
        return {"n_layers": self.n_layers, "n_heads": self.n_heads, "head_dim": self.dim}

    def __len__(self) -> int:
        return self.n_layers * (self.n_heads or 1)

    def __str__(self) -> str:
        heads = f"{self.n_heads} heads of {self.dim}" if self.n_heads else f"hidden size {self.dim}"
        return f"{self.n_layers} layers x {heads} at {self.pattern}"

    def all_locations(self) -> Tensor:
        """Every location, `[L * H, 2]` or `[L, 1]`."""
        return locations_of(self.grid)


def locations_of(grid: tuple[int, ...]) -> Tensor:
    """Every location of a grid (L, H) or (L,), in order: `[L * H, 2]` or `[L, 1]`."""
    return torch.cartesian_prod(*map(torch.arange, grid)).reshape(-1, len(grid))


def find_heads(model: nn.Module, pattern: str = "") -> Site:
    """Locate the heads of a transformers model, by inspection or by a pattern such as `h.{layer}.attn.c_proj`.

    Raises `StvError` that names the model where they cannot be found.
    """
    pattern = pattern or _inspect(model)
    projections = _resolve(model, pattern)
    widths = {_width(p, "in_features") for p in projections}
    n_heads = _head_count(model)
    if len(widths) != 1 or None in widths or (width := widths.pop() or 0) % n_heads:
        raise StvError(
            f"The heads of {type(model).__name__} cannot be read at {pattern}: its modules must be linear layers with "
            f"one input width that its {n_heads} heads divide; set model.heads.pattern to the output projections."
        )
    # Read from the projection: head_dim is a setting of its own in many families, not hidden_size / heads.
    return Site("head", projections, n_heads, width // n_heads, pattern)


def find_site(model: nn.Module, name: str = "head", pattern: str = "") -> Site:
    """Locate a site of a model, from the pattern of its output projections (empty: found by inspection).

    Raises `StvError` where the site is unknown or the model has none.
    """
    heads = find_heads(model, pattern)
    if name == "head":
        return heads
    if name not in _PATHS:
        raise StvError(f"The site {name!r} is unknown; choose one of head, {', '.join(_PATHS)}.")
    path = _PATHS[name](model, heads)
    hidden = _width(heads.modules[0], "out_features") or 0
    return Site(name, _resolve(model, path), None, hidden, path)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile's or PEFT's wrapper: `generate` passes wrappers by, and the hooks on them."""
    wrapper: Any = model
    if hasattr(wrapper, "_orig_mod"):
        return unwrapped(wrapper._orig_mod)
    if hasattr(wrapper, "get_base_model"):
        return unwrapped(wrapper.get_base_model())
    return model


def _layer(heads: Site) -> str:
    return heads.pattern[: heads.pattern.index("{layer}") + len("{layer}")]


def _mlp(model: nn.Module, heads: Site) -> str:
    layer = _layer(heads)
    first = model.get_submodule(layer.replace("{layer}", "0"))
    name = next((name for name in _MLP_NAMES if hasattr(first, name)), None)
    if name is None:
        raise StvError(
            f"No MLP was found in the layers of {type(model).__name__} at {layer} (none of {', '.join(_MLP_NAMES)}); "
            "choose another method.site."
        )
    return f"{layer}.{name}"


# Paths of the modules whose *output* a site is.
_PATHS: dict[str, Callable[[nn.Module, Site], str]] = {
    "attention": lambda model, heads: heads.pattern,
    "mlp": _mlp,
    "residual": lambda model, heads: _layer(heads),
}


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


def _width(projection: nn.Module, side: str) -> int | None:
    """Features that a projection reads or writes; GPT-2's Conv1D keeps its weight as [in, out]."""
    if isinstance(projection, Conv1D):
        return projection.nx if side == "in_features" else projection.nf
    return getattr(projection, side, None)


def _head_count(model: nn.Module) -> int:
    count = head_count(model.config)
    if count is None:
        raise StvError(
            f"The config of {type(model).__name__} names no head count ({', '.join(_HEAD_COUNT_NAMES)}); "
            "the model cannot be used."
        )
    return count


def head_count(config: Any) -> int | None:
    """Attention heads a layer of a decoder, from its configuration; None where it does not say."""
    config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    found = [count for name in _HEAD_COUNT_NAMES if isinstance(count := getattr(config, name, None), int)]
    return found[0] if found else None
