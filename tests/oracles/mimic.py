"""MimIC (`Kamichanw/MimIC`) written plainly, batch 1, full forwards.

Differences kept on purpose: those of `training` and `attention`, and that the squared error is of the answer's tokens,
where the published code has the question's too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.attention import changed
from tests.oracles.training import Question, answer_logits


def outputs(network: Any, mlps: Sequence[nn.Module], question: Question) -> tuple[Tensor, Tensor]:
    """Answer logits `[N, V]`, and what the MLPs give out there `[L, N, hidden]`."""
    seen: list[Tensor] = []
    hooks = [mlp.register_forward_hook(lambda _, args, out: seen.append(out[0])) for mlp in mlps]
    logits = answer_logits(network, question)
    for hook in hooks:
        hook.remove()
    return logits, torch.stack(seen)[:, -len(logits) :]


def loss(
    network: Any,
    attentions: Sequence[Any],
    mlps: Sequence[nn.Module],
    p: dict[str, Tensor],
    question: Question,
    teacher: Tensor,
    masked: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, MSE + 0.5 CE, and both; `teacher [L, N, hidden]` are the many-shot prompt's MLP outputs."""

    def shift(layer: int, heads: Tensor, queries: Tensor, log_z2: Tensor) -> Tensor:
        log_z1 = torch.einsum("htd,hd->ht", queries, p["weight"][layer]) + p["bias"][layer][:, None]
        mu = (log_z1 - torch.logaddexp(log_z1, log_z2)).exp()
        return heads + mu[..., None] * p["vectors"][layer][:, None]

    with changed(attentions, shift, masked):
        logits, states = outputs(network, mlps, question)
    error = nn.functional.mse_loss(states, teacher)
    entropy = nn.functional.cross_entropy(logits, question[1])
    return error + 0.5 * entropy, error, entropy
