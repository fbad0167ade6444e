"""Low-rank updates of the projections of attention, which peft computes, for the length of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from stv_exp.errors import StvError
from stv_exp.models.paths import width
from stv_exp.models.sites import Site

_NAME = "stv_exp"
_made: WeakKeyDictionary[nn.Module, dict[Any, dict[str, nn.Module]]] = WeakKeyDictionary()


def widths(heads: Site) -> dict[str, tuple[int, int]]:
    """Of each linear module of attention by name, what it reads and writes; those that all layers have alike."""
    sizes = [
        {name: (width(module, "in_features") or 0, width(module, "out_features") or 0) for name, module in of.items()}
        for of in map(_projections, heads.attentions)
    ]
    return {name: size for name, size in sizes[0].items() if all(other.get(name) == size for other in sizes)}


@contextmanager
def adapted(
    model: nn.Module, heads: Site, rows: Mapping[int, int], p: Mapping[str, Tensor], reach: Callable[[], None]
) -> Iterator[None]:
    """Within the block W of layer `l` is W + 2 B A, of `p[name_a][rows[l]] [r, in]` and `p[name_b][rows[l]] [out, r]`.

    `reach` is called at each such module that runs. Raises `StvError` without peft, or where it is at work already.
    """
    places = {
        id(module): (name, rows[layer])
        for layer, attention in zip(heads.layers, heads.attentions, strict=True)
        for name, module in _projections(attention).items()
        if layer in rows and f"{name}_a" in p
    }
    found = {path: places[id(module)] for path, module in model.named_modules() if id(module) in places}
    layers = _layers(model, tuple(found), rank=next(iter(p.values())).shape[1])
    with ExitStack() as stack:
        for path, (name, row) in found.items():
            layer: Any = layers[path]
            _set(layer.lora_A[_NAME], p[f"{name}_a"][row])
            _set(layer.lora_B[_NAME], p[f"{name}_b"][row])
            stack.callback(layer.register_forward_hook(lambda *_: reach()).remove)
            parent, _, child = path.rpartition(".")
            stack.callback(setattr, model.get_submodule(parent), child, layer.base_layer)
            setattr(model.get_submodule(parent), child, layer)
        yield


def _projections(attention: nn.Module) -> dict[str, nn.Module]:
    """The linear modules of an attention by name: of queries, keys and values, and of the output."""
    return {name: module for name, module in attention.named_children() if width(module, "in_features")}


def _layers(model: nn.Module, paths: tuple[str, ...], rank: int) -> dict[str, nn.Module]:
    """What peft puts in the place of these modules, made once a model: that takes longer than a step of a training."""
    own, before = _made.setdefault(model, {}), {path: model.get_submodule(path) for path in paths}
    if hasattr(model, "peft_config") or any(hasattr(module, "base_layer") for module in before.values()):
        raise StvError(
            f"The attention of {type(model).__name__} is adapted by peft already; merge that adapter, or end its block."
        )
    key = (*map(id, before.values()), rank)
    if key not in own:
        flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        try:
            _inject(model, before, rank)
            own[key] = {path: model.get_submodule(path) for path in paths}
        finally:
            for path, module in before.items():
                model.set_submodule(path, module)
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
            vars(model).pop("peft_config", None)
    return own[key]


def _inject(model: nn.Module, modules: Mapping[str, nn.Module], rank: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise StvError("LoRA is computed by peft, which is not installed: pip install 'stv_exp[peft]'.") from error
    turned = any(isinstance(module, Conv1D) for module in modules.values())  # GPT-2 keeps its weights as [in, out]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(modules), fan_in_fan_out=turned)
    inject_adapter_in_model(config, model, _NAME)


def _set(linear: nn.Module, weight: Tensor) -> None:
    """A tensor in the place of a parameter, so that gradients reach what it is a part of."""
    held: Any = linear.weight
    linear._parameters.pop("weight", None)
    linear.weight = weight.to(held.device)
