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
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from stv_exp.artefacts.scan import numbered
from stv_exp.artefacts.values import one_line
from stv_exp.errors import StvError
from stv_exp.models.paths import by_value, layer_path, modules_at, numbers, width

_ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")
_PROJECTION_NAMES = ("o_proj", "out_proj", "dense", "c_proj", "wo")
_MLP_NAMES = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "shared_mlp")
_HEAD_COUNT_NAMES = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_NOT_THE_DECODER = ("vision", "visual", "image", "encoder", "perceiver", "resampler", "audio")


@dataclass(frozen=True)
class Site:
    """One module in each of the decoder's layers that has it, and the part of its input or output that is meant.

    `layers` are those layers' numbers among the model's `depth` (others have cross-attention, a convolution or a state
    instead). With `n_heads` a location is (layer, head) and `dim` the head's width; without, a location is (layer,) and
    `dim` the hidden size. `pattern` is the modules' path in the model, `{layer}` standing for the layer's number.
    `attentions` hold them, where they are heads' output projections.
    """

    name: str
    modules: tuple[nn.Module, ...]
    n_heads: int | None
    dim: int
    pattern: str
    layers: tuple[int, ...]
    depth: int
    attentions: tuple[nn.Module, ...] = ()

    @property
    def n_layers(self) -> int:
        """Layers that have this site."""
        return len(self.modules)

    @property
    def grid(self) -> tuple[int, ...]:
        """Locations by their place in order: (L, H), or (L,) without heads."""
        return (self.n_layers,) if self.n_heads is None else (self.n_layers, self.n_heads)

    @property
    def shape(self) -> dict[str, int]:
        """What a vector for this site has to fit."""
        if self.n_heads is None:
            return {"n_layers": self.depth, "hidden_size": self.dim}
        return {"n_layers": self.depth, "n_heads": self.n_heads, "head_dim": self.dim}

    def __len__(self) -> int:
        return self.n_layers * (self.n_heads or 1)

    def __str__(self) -> str:
        heads = f"{self.n_heads} heads of {self.dim}" if self.n_heads else f"hidden size {self.dim}"
        without = sorted({*range(self.depth)} - {*self.layers})
        some = f" of {self.depth} (none in layer {numbers(without)})" if without else ""
        return f"{self.n_layers} layers{some} x {heads} at {self.pattern}"

    def all_locations(self) -> Tensor:
        """Every location, `[L * H, 2]` or `[L, 1]`, with the layers' own numbers."""
        return numbered(locations_of(self.grid), self.layers)


def locations_of(grid: tuple[int, ...]) -> Tensor:
    """Every place of a grid (L, H) or (L,), in order: `[L * H, 2]` or `[L, 1]`."""
    return torch.cartesian_prod(*map(torch.arange, grid)).reshape(-1, len(grid))


def find_heads(model: nn.Module, pattern: str = "") -> Site:
    """Locate the heads of a transformers model, by inspection or by a pattern such as `h.{layer}.attn.c_proj`.

    Raises `StvError` that names the model where they cannot be found.
    """
    pattern = pattern or _inspect(model)
    found = modules_at(model, pattern)
    if not found:
        raise StvError(
            f"model.heads.pattern={one_line(pattern)} matches nothing in {type(model).__name__}; "
            "it needs {layer} where the layer's number stands, as in transformer.h.{layer}.attn.c_proj."
        )
    _refuse_inputs(model, pattern)
    n_heads, width = _head_count(model, pattern, found), _head_width(model, pattern, found)
    if width % n_heads:
        raise _unreadable(model, pattern, f"its input of {width} is not divided by its {n_heads} heads")
    # Read from the projection: head_dim is a setting of its own in many families, not hidden_size / heads.
    site, around = _site("head", model, found, n_heads, width // n_heads, pattern), pattern.rpartition(".")[0]
    return replace(site, attentions=tuple(modules_at(model, around)[layer] for layer in site.layers))


def find_site(model: nn.Module, name: str = "head", pattern: str = "") -> Site:
    """Locate a site of a model, from the pattern of its output projections (empty: found by inspection).

    Raises `StvError` where the site is unknown or the model has none.
    """
    heads = find_heads(model, pattern)
    if name == "head":
        return heads
    if name not in _PATHS:
        raise StvError(f"The site {one_line(repr(name))} is unknown; choose one of head, {', '.join(_PATHS)}.")
    path = _PATHS[name](model, heads)
    hidden = width(heads.modules[0], "out_features") or 0
    return _site(name, model, modules_at(model, path), None, hidden, path)


def _site(
    name: str, model: nn.Module, found: dict[int, nn.Module], n_heads: int | None, dim: int, pattern: str
) -> Site:
    depth = max(modules_at(model, layer_path(pattern))) + 1
    return Site(name, tuple(found.values()), n_heads, dim, pattern, tuple(found), depth)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile's or PEFT's wrapper: `generate` passes wrappers by, and the hooks on them."""
    wrapper: Any = model
    if hasattr(wrapper, "_orig_mod"):
        return unwrapped(wrapper._orig_mod)
    if hasattr(wrapper, "get_base_model"):
        return unwrapped(wrapper.get_base_model())
    return model


def _mlp(model: nn.Module, heads: Site) -> str:
    """The path that most layers have: some families write dense and sparse ones under two names."""
    path = layer_path(heads.pattern)
    layers = modules_at(model, path).values()
    counts = {name: sum(isinstance(getattr(layer, name, None), nn.Module) for layer in layers) for name in _MLP_NAMES}
    name = max(counts, key=lambda name: counts[name])
    if not counts[name]:
        raise StvError(
            f"No MLP was found in the layers of {type(model).__name__} at {path} (none of {', '.join(_MLP_NAMES)}); "
            "choose another method.site."
        )
    return f"{path}.{name}"


# Paths of the modules whose *output* a site is.
_PATHS: dict[str, Callable[[nn.Module, Site], str]] = {
    "attention": lambda model, heads: heads.pattern,
    "mlp": _mlp,
    "residual": lambda model, heads: layer_path(heads.pattern),
}


def _refuse_inputs(model: nn.Module, pattern: str) -> None:
    """Raise `StvError` for what stands beside an output projection: queries have as many numbers, but are no heads."""
    parent, _, name = pattern.rpartition(".")
    for attention in modules_at(model, parent).values():
        if name not in _PROJECTION_NAMES and (outputs := [o for o in _PROJECTION_NAMES if hasattr(attention, o)]):
            raise _unreadable(model, pattern, f"{name} stands beside the output projection {outputs[0]}")


def _inspect(model: nn.Module) -> str:
    """The pattern of the longest list of layers of which some have an attention with an output projection."""
    lists: list[tuple[int, str, dict[int, str]]] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(part in name.lower() for part in _NOT_THE_DECODER):
            paths = {i: path for i, layer in enumerate(module) if (path := _projection_path(layer))}
            lists += [(len(module), name, paths)] if paths else []
    if not lists:
        raise StvError(
            f"No attention output projections were found in {type(model).__name__}: no list of layers has one of "
            f"{', '.join(_PROJECTION_NAMES)} in its attention; set model.heads.pattern to where they are."
        )
    _, name, paths = max(lists, key=lambda found: found[0])
    return f"{name}.{{layer}}.{_only(model, name, paths)}"


def _only(model: nn.Module, name: str, paths: dict[int, str]) -> str:
    """The one path of all layers that have one; two kinds of attention side by side are the user's to choose from."""
    if len(kinds := by_value(paths)) > 1:
        found = "; ".join(f"{name}.{{layer}}.{path} in layer {numbers(layers)}" for path, layers in kinds.items())
        raise StvError(
            f"{type(model).__name__} has several kinds of attention ({found}); set model.heads.pattern to one of them."
        )
    return next(iter(kinds))


def _projection_path(layer: nn.Module) -> str | None:
    """Path of a decoder layer's output projection within the layer."""
    for attention in _ATTENTION_NAMES:
        for projection in _PROJECTION_NAMES:
            if hasattr(getattr(layer, attention, None), projection):
                return f"{attention}.{projection}"
    return None


def _head_width(model: nn.Module, pattern: str, found: dict[int, nn.Module]) -> int:
    """Width of what all output projections read, which all heads share."""
    if len({*map(id, found.values())}) < len(found):
        raise _unreadable(model, pattern, "several layers share one module, so that no edit would stay in its layer")
    widths = {layer: width(module, "in_features") for layer, module in found.items()}
    if none := [layer for layer, width in widths.items() if width is None]:
        raise _unreadable(model, pattern, f"what stands there in layer {numbers(none)} is no linear layer")
    return _same(model, pattern, "width", widths)


def _head_count(model: nn.Module, pattern: str, found: dict[int, nn.Module]) -> int:
    counts = {layer: head_count(_of_layer(model.config, layer)) for layer in found}
    if None in counts.values():
        raise StvError(
            f"The config of {type(model).__name__} names no head count ({', '.join(_HEAD_COUNT_NAMES)}), or not one "
            "for all layers; the model cannot be used."
        )
    return _same(model, pattern, "number", counts)


def _same(model: nn.Module, pattern: str, what: str, values: dict[int, Any]) -> int:
    """The one value of all layers."""
    if len(kinds := by_value(values)) > 1:
        found = "; ".join(f"{value} in layer {numbers(layers)}" for value, layers in kinds.items())
        raise _unreadable(model, pattern, f"the {what} of all heads of a layer differs ({found})")
    return next(iter(kinds))


def _unreadable(model: nn.Module, pattern: str, reason: str) -> StvError:
    return StvError(
        f"The heads of {type(model).__name__} cannot be read at {one_line(pattern)}: {reason}; set model.heads.pattern "
        "to output projections that are linear layers of one width and head count."
    )


def _of_layer(config: Any, layer: int) -> Any:
    """The configuration of one layer, where layers have their own."""
    text = config.get_text_config(decoder=True)
    return text.per_layer_config[layer] if getattr(text, "is_heterogeneous", False) else text


def head_count(config: Any) -> int | None:
    """Attention heads a layer of a decoder, from its configuration; None where it does not say."""
    config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    found = [count for name in _HEAD_COUNT_NAMES if isinstance(count := getattr(config, name, None), int)]
    return found[0] if found else None
