"""LoRA (Hu et al., ICLR 2022) written plainly: W + 2 B A in the place of each projection's weight, batch 1.

Difference kept on purpose: no dropout; losses are those of `training`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tests.oracles.training import Question, ce


@contextmanager
def merged(attentions: Sequence[Any], p: dict[str, Tensor]) -> Any:
    """Within the block each projection's weight is the updated one, a tensor that gradients flow through."""
    kept = []
    for layer, attention in enumerate(attentions):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            module = getattr(attention, name)
            kept.append((module, module._parameters.pop("weight")))
            module.weight = kept[-1][1] + 2 * p[f"{name}_b"][layer] @ p[f"{name}_a"][layer]
    try:
        yield
    finally:
        for module, weight in kept:
            del module.weight
            module.weight = weight


def loss(network: Any, attentions: Sequence[Any], p: dict[str, Tensor], question: Question) -> Tensor:
    """Cross-entropy of the answer's tokens."""
    with merged(attentions, p):
        return ce(network, question)


def starts_alike(p: dict[str, Tensor]) -> bool:
    """A within the bounds of peft's start (Kaiming, a = sqrt 5), B at 0."""
    first = {name: value for name, value in p.items() if name.endswith("_a")}
    within = all(value.abs().max() <= value.shape[-1] ** -0.5 for value in first.values())
    return within and not any(torch.count_nonzero(value) for name, value in p.items() if name not in first)
