"""LIVE (`ForJadeForest/LIVE-Learnable-In-Context-Vector`) written plainly: hooks on the MLPs, batch 1, full forwards.

Differences kept on purpose: those of `training`, and
- `ahead`: the KL is of the logits before each of the answer's tokens; the published code masks the answer's own tokens
  without a shift, so that its KL is of what comes behind them and not of the first one.
- `temperature`, `epsilon`: of the published KL; here 1 and 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tests.oracles.training import Question, answer_logits, answered, ce

STD, SCALE = 0.01, 0.1  # of the vectors at the start, and the scales there


def loss(
    network: Any,
    mlps: Sequence[nn.Module],
    vectors: Tensor,
    scales: Tensor,
    question: Question,
    teacher: Tensor,
    ahead: bool = True,
    whole: bool = False,
    temperature: float = 1.0,
    epsilon: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, KL + 0.5 CE, and both; `teacher [N, V]` are the many-shot prompt's logits (see `told`)."""

    def shifted(layer: int, found: Tensor) -> Tensor:
        moved = found + scales[layer] * vectors[layer]
        return moved / moved.norm(dim=-1, keepdim=True) * found.norm(dim=-1, keepdim=True)

    hooks = [m.register_forward_hook(lambda _, args, out, i=i: shifted(i, out)) for i, m in enumerate(mlps)]
    student = told(network, question, ahead)
    entropy = ce(network, question, whole)
    for hook in hooks:
        hook.remove()
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    kl = (p * ((p + epsilon).log() - (q + epsilon).log())).sum(-1).mean() * temperature**2
    return kl + 0.5 * entropy, kl, entropy


def told(network: Any, question: Question, ahead: bool = True) -> Tensor:
    """Logits `[N, V]` before each of the answer's tokens, or at them."""
    if ahead:
        return answer_logits(network, question)
    return network(**answered(question), use_cache=False).logits[0, -len(question[1]) :]
