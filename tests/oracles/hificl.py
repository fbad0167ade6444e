"""HiFICL (`bbbandari/HiFICL`, `AttnApproximatorDirect_final`) written plainly, batch 1, full forwards.

Differences kept on purpose are those of `training` and `attention`. `p` holds `key` and `value` tables, or two factors
of each (`key_a`, `key_b`), as published.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.oracles.attention import changed
from tests.oracles.training import Question, ce

# Standard deviations at the start: of free tables, and of their factors.
START = {"key": 0.01, "value": 0.0, "key_a": 1.0, "key_b": 0.01, "value_a": 1.0, "value_b": 0.0}


def loss(
    network: Any,
    attentions: Sequence[Any],
    p: dict[str, Tensor],
    question: Question,
    masked: bool = True,
    whole: bool = False,
) -> Tensor:
    """Cross-entropy of the answer's tokens."""

    def table(name: str, layer: int) -> Tensor:
        return p[name][layer] if name in p else p[f"{name}_a"][layer] @ p[f"{name}_b"][layer]

    def approximated(layer: int, heads: Tensor, queries: Tensor, log_z2: Tensor) -> Tensor:
        scores = queries @ table("key", layer).transpose(-2, -1) / queries.shape[-1] ** 0.5
        denominator = torch.logaddexp(scores.logsumexp(-1), log_z2)
        own = heads * (log_z2 - denominator).exp()[..., None]
        return own + (scores - denominator[..., None]).exp() @ table("value", layer)

    with changed(attentions, approximated, masked):
        return ce(network, question, whole)
