"""What a model keeps of a prompt, layer by layer, taken apart into prompts and joined again.

- keys and values of tokens, `[Hkv, P, D]`: joined, they are padded on the left like the prompts;
- keys and values of pictures (cross-attention), `[Hkv, patches, D]`: padded on the right, as masks of pictures are;
- the state of a recurrent layer (linear attention, convolution), which has no length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import (
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)

from stv_exp.errors import StvError

Kept = dict[str, Tensor]  # of one layer and one prompt, by name
_PICTURES = "pictures_"
_STATES = ("conv_states", "recurrent_states")


class StateLayer(LinearAttentionLayer):
    """A recurrent layer's state that is never written to in place: gradients flow through it."""

    def update_conv_state(
        self, conv_states: Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **kwargs: Any
    ) -> Tensor:
        before = self.conv_states[state_idx]
        size = before.shape[-1] if before is not None else conv_kernel_size or conv_states.shape[-1]
        seen = conv_states if before is None else torch.cat([before, conv_states], -1)
        self.conv_states[state_idx] = pad(seen, (max(0, size - seen.shape[-1]), 0))[..., -size:]
        self.has_previous_state[state_idx] = self.is_conv_states_initialized[state_idx] = True
        return seen

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **kwargs: Any) -> Tensor:
        self.recurrent_states[state_idx] = recurrent_states
        self.has_previous_state[state_idx] = self.is_recurrent_states_initialized[state_idx] = True
        return recurrent_states


def empty_cache(config: Any) -> DynamicCache:
    """A cache for one forward. Sliding layers keep all of their tokens, which the masks of trees ask for."""
    text = config.get_text_config(decoder=True)
    if not (recurrent := _recurrent(text)):
        return DynamicCache()
    cache = DynamicCache(config=text)
    for i, layer in enumerate(cache.layers):
        if recurrent[i] and isinstance(layer, CacheLayerMixin):
            raise StvError("Layers that keep both tokens and a state cannot be kept; score by full forwards.")
        if not recurrent[i]:
            cache.layers[i] = DynamicLayer()
    return cache


def is_recurrent(config: Any) -> bool:
    """Whether some of a decoder's layers keep a state instead of tokens."""
    return any(_recurrent(config.get_text_config(decoder=True)))


def _recurrent(text: Any) -> list[bool]:
    if getattr(text, "layer_types", None) is None:
        return []
    layers = DynamicCache(config=text).layers
    found = [isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers]
    return found if any(found) else []


def of_row(cache: DynamicCache, row: int, tokens: int, pictures: Sequence[int]) -> tuple[Kept, ...]:
    """What each layer keeps of one row's last `tokens`; `pictures` are the layers that keep pictures instead."""
    return tuple(_of_row(layer, row, tokens, i in pictures) for i, layer in enumerate(cache.layers))


def _of_row(layer: Any, row: int, tokens: int, pictures: bool) -> Kept:
    if isinstance(layer, LinearAttentionCacheLayerMixin):
        states = {f"{name}.{i}": state for name in _STATES for i, state in getattr(layer, name).items()}
        return {name: state[row].clone() for name, state in states.items() if state is not None}
    if layer.keys is None:  # a layer of cross-attention that no picture came to
        return {}
    both = {"keys": layer.keys[row], "values": layer.values[row]}
    if pictures:
        return {_PICTURES + name: found.clone() for name, found in both.items()}
    return {name: found[:, found.shape[1] - tokens :].clone() for name, found in both.items()}


def joined(prompts: Sequence[tuple[Kept, ...]], times: int = 1) -> DynamicCache:
    """A fresh cache over what is kept of several prompts, each `times` over. What is kept is not written to."""
    cache = DynamicCache()
    cache.layers = [_joined(kept, times) for kept in zip(*prompts, strict=True)]
    return cache


def _joined(kept: Sequence[Kept], times: int) -> Any:
    names = {name: None for prompt in kept for name in prompt}
    tensors = {name: _stack([prompt.get(name) for prompt in kept], name, times) for name in names}
    if not any(name.startswith(_STATES) for name in tensors):
        layer = DynamicLayer()
        if tensors:
            layer.update(*tensors.values())
        return layer
    state = StateLayer(number_of_states=1 + max(int(name.rpartition(".")[2]) for name in tensors))
    for name, tensor in tensors.items():
        part, _, i = name.partition(".")
        update = state.update_conv_state if part == "conv_states" else state.update_recurrent_state
        update(tensor.clone(), int(i))  # some kernels write into what they are given
    return state


def _stack(tensors: Sequence[Tensor | None], name: str, times: int) -> Tensor:
    """`[rows * times, ...]`; a prompt without pictures beside one with has as many that are nothing."""
    some = next(tensor for tensor in tensors if tensor is not None)
    filled = [some[:, :0] if tensor is None else tensor for tensor in tensors]
    if len(filled) == 1:
        return filled[0].expand(times, *filled[0].shape)
    if name.startswith(_STATES):
        return torch.stack(filled).repeat_interleave(times, 0)
    longest = max(tensor.shape[1] for tensor in filled)
    gaps = [longest - tensor.shape[1] for tensor in filled]
    right = name.startswith(_PICTURES)
    padded = [pad(t, (0, 0, 0, gap) if right else (0, 0, gap, 0)) for t, gap in zip(filled, gaps, strict=True)]
    return torch.stack(padded).repeat_interleave(times, 0)
