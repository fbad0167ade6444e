"""Paths of modules with `{layer}` where a layer's number stands, such as `model.layers.{layer}.mlp`."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

from torch import nn
from transformers.pytorch_utils import Conv1D

_LAYER = "{layer}"
_V = TypeVar("_V", bound=Hashable)


def modules_at(model: nn.Module, pattern: str) -> dict[int, nn.Module]:
    """The modules at `pattern` by the numbers of their layers, in order: layers without such a module are left out."""
    before, *after = map(re.escape, pattern.split(_LAYER))
    if not after:
        return {}
    path = re.compile(before + r"(\d+)" + r"\1".join(after))
    # A module that layers share stands at each of its paths.
    named = model.named_modules(remove_duplicate=False)
    found = {int(match[1]): module for name, module in named if (match := path.fullmatch(name))}
    return dict(sorted(found.items()))


def layer_path(pattern: str) -> str:
    """The path of the layers themselves."""
    start, _, rest = pattern.partition(_LAYER)
    return start + _LAYER + rest.partition(".")[0]


def width(projection: nn.Module, side: str) -> int | None:
    """Features that a projection reads or writes; GPT-2's Conv1D keeps its weight as [in, out]."""
    if isinstance(projection, Conv1D):
        return projection.nx if side == "in_features" else projection.nf
    return getattr(projection, side, None)


def by_value(values: Mapping[int, _V]) -> dict[_V, list[int]]:
    """The layers of each value."""
    kinds: dict[_V, list[int]] = {}
    for layer, value in values.items():
        kinds.setdefault(value, []).append(layer)
    return kinds


def numbers(layers: Iterable[int]) -> str:
    """`0-2, 5` for 0, 1, 2, 5."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
