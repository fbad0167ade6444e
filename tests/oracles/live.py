"""LIVE (`ForJadeForest/LIVE-Learnable-In-Context-Vector`) written plainly: hooks on the MLPs, batch 1, full forwards.

Differences kept on purpose are those of `training`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.training import Question, answer_logits, ce


def loss(
    network: Any, mlps: Sequence[nn.Module], vectors: Tensor, scales: Tensor, question: Question, teacher: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, KL + 0.5 CE, and both; `teacher [N, V]` are the many-shot logits at the answer's tokens."""

    def shifted(layer: int, found: Tensor) -> Tensor:
        moved = found + scales[layer] * vectors[layer]
        return moved / moved.norm(dim=-1, keepdim=True) * found.norm(dim=-1, keepdim=True)

    hooks = [m.register_forward_hook(lambda _, args, out, i=i: shifted(i, out)) for i, m in enumerate(mlps)]
    student = answer_logits(network, question)
    entropy = ce(network, question)
    for hook in hooks:
        hook.remove()
    p, q = teacher.softmax(-1), student.softmax(-1)
    kl = (p * (p.log() - q.log())).sum(-1).mean()
    return kl + 0.5 * entropy, kl, entropy


@torch.no_grad()
def teach(network: Any, context: Question) -> Tensor:
    """The many-shot prompt's logits at the answer's tokens."""
    return answer_logits(network, context)
