"""MimIC (`Kamichanw/MimIC`) written plainly, batch 1, full forwards.

Differences kept on purpose: those of `training` and `attention`, and
- `whole`: the squared error is of the tokens before each of the answer's; the published code has all of the question's
  and the answer's too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.attention import changed
from tests.oracles.training import Question, answer_logits, ce

START = {"vectors": 0.001, "weight": 0.02, "bias": 0.0}  # standard deviations


def outputs(network: Any, mlps: Sequence[nn.Module], question: Question, n: int = 0) -> tuple[Tensor, Tensor]:
    """Answer logits `[N, V]`, and what the MLPs give out there, or at the last `n` tokens, `[L, N, hidden]`."""
    seen: list[Tensor] = []
    hooks = [mlp.register_forward_hook(lambda _, args, out: seen.append(out[0])) for mlp in mlps]
    logits = answer_logits(network, question)
    for hook in hooks:
        hook.remove()
    return logits, torch.stack(seen)[:, -(n or len(logits)) :]


def loss(
    network: Any,
    attentions: Sequence[Any],
    mlps: Sequence[nn.Module],
    p: dict[str, Tensor],
    question: Question,
    teacher: Tensor,
    masked: bool = True,
    whole: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, MSE + 0.5 CE, and both; `teacher [L, N, hidden]` are the many-shot prompt's MLP outputs."""

    def shift(layer: int, heads: Tensor, queries: Tensor, log_z2: Tensor) -> Tensor:
        log_z1 = torch.einsum("htd,hd->ht", queries, p["weight"][layer]) + p["bias"][layer][:, None]
        mu = (log_z1 - torch.logaddexp(log_z1, log_z2)).exp()
        return heads + mu[..., None] * p["vectors"][layer][:, None]

    with changed(attentions, shift, masked):
        _, states = outputs(network, mlps, question, teacher.shape[1])
        entropy = ce(network, question, whole)
    error = nn.functional.mse_loss(states, teacher)
    return error + 0.5 * entropy, error, entropy
