"""Edits of attention itself, by transformers' own extension point: a registered function that models look up by name.

The function is plain attention with one addition: whoever edits a layer is shown what it gives out and the logarithm of
its denominator. Scores are computed as such, whatever the model's own implementation (sdpa, flash) was.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from stv_exp.errors import StvError
from stv_exp.methods.trained import Attended
from stv_exp.models.paths import modules_at
from stv_exp.models.sites import Site

Change = Callable[[int, Attended], Tensor]
_NAME = "stv_exp"
_numbers = count()


@contextmanager
def attention_edited(model: nn.Module, heads: Site, change: Change) -> Iterator[None]:
    """Within the block attention of the layers of `heads` gives out `change(layer, what it would give out)`.

    Raises `StvError` where the model's code does not ask for attention by name, or is edited so already.
    """
    modules = modules_at(model, heads.pattern.rpartition(".")[0])
    layers = {id(module): layer for layer, module in modules.items() if layer in heads.layers}
    configs = _configs(model, modules)

    def attention(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        seen = attended(module, *args, **kwargs)
        found = change(layers[id(module)], seen) if id(module) in layers else seen.out
        return found.transpose(1, 2).contiguous(), None

    name, before = f"{_NAME}_{next(_numbers)}", [config._attn_implementation for config in configs]
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, eager_mask)  # always there, so that what is padding is always known
    try:
        for config in configs:
            config._attn_implementation = name
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation
        AttentionInterface._global_mapping.pop(name)
        AttentionMaskInterface._global_mapping.pop(name)


def _configs(model: Any, modules: dict[int, nn.Module]) -> list[Any]:
    """The configurations by which the decoder's attention and masks are looked up, each once."""
    for module in modules.values():
        if not hasattr(sys.modules[type(module).__module__], "ALL_ATTENTION_FUNCTIONS"):
            raise StvError(
                f"{type(model).__name__} has attention of its own that transformers' registry does not reach; "
                "choose an edit that leaves attention alone, or another model."
            )
    found = [model.config.get_text_config(decoder=True), *(module.config for module in modules.values())]
    if any(str(config._attn_implementation).startswith(_NAME) for config in found):
        raise StvError(f"The attention of {type(model).__name__} is edited already; end that block first.")
    return list({id(config): config for config in found}.values())


def attended(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> Attended:
    """Attention of queries `[B, H, T, D]` over keys and values `[B, Hkv, P, D]`, each of which H / Hkv heads share.

    Raises `StvError` where heads have a sink, a score that belongs to no key: a published edit knows none.
    """
    if s_aux is not None:
        raise StvError(
            f"{type(module).__name__} has attention sinks; choose an edit that leaves attention alone, or another "
            "model."
        )
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, 1) for t in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query @ key.mT * scale).float()
    if softcap:
        scores = softcap * (scores / softcap).tanh()
    everywhere = scores
    if mask is None and (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        mask = torch.ones_like(scores[0, 0], dtype=torch.bool).tril(key.shape[2] - query.shape[2])
    if mask is not None:
        mask = mask[..., : key.shape[2]]
        least = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, least) if mask.dtype == torch.bool else (scores + mask).clamp(min=least)
    log_z = scores.logsumexp(-1)
    weights = (scores - log_z[..., None]).exp().to(value.dtype)
    return Attended(weights @ value, query, log_z, lambda: everywhere.logsumexp(-1), scale)
