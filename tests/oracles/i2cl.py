"""I2CL (`LzVv123456/I2CL`) written plainly: hooks on whole blocks, batch 1, full forwards, no noise.

Differences kept on purpose: the demonstrations are the whole support, each a prompt, its answer and the line's end that
separates demonstrations; the code draws batches, here epochs go through the support; `first`: the code's loss is of the
answer's first token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.training import Question, answer_logits, answered

START = (0.1, 1.0)  # a, b

Blocks = Sequence[tuple[nn.Module, nn.Module]]  # the attention and the MLP of each layer


@contextmanager
def hooked(blocks: Blocks, change: Callable[[int, int, Tensor], Tensor]) -> Iterator[None]:
    def hook(layer: int, place: int) -> Callable[..., Any]:
        def run(_: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (change(layer, place, output[0]), *output[1:])
            return change(layer, place, output)

        return run

    handles = [m.register_forward_hook(hook(i, j)) for i, pair in enumerate(blocks) for j, m in enumerate(pair)]
    yield
    for handle in handles:
        handle.remove()


@torch.no_grad()
def context_vectors(network: Any, blocks: Blocks, demonstrations: Sequence[Question]) -> Tensor:
    """`[L, 2, hidden]`: the mean over demonstrations of what each block gives out at the last token."""
    found = []
    for demonstration in demonstrations:
        seen: dict[tuple[int, int], Tensor] = {}
        with hooked(blocks, partial(_keep, seen)):
            network(**answered(demonstration), use_cache=False)
        found.append(torch.stack([torch.stack([seen[i, j] for j in (0, 1)]) for i in range(len(blocks))]))
    return torch.stack(found).mean(0)


def _keep(seen: dict[tuple[int, int], Tensor], i: int, j: int, out: Tensor) -> Tensor:
    seen[i, j] = out[0, -1]
    return out


def logits(network: Any, blocks: Blocks, vectors: Tensor, scales: Tensor, question: Question) -> Tensor:
    """Answer logits with b x output + a x vector everywhere; `scales [L, 2, (a, b)]`."""
    with hooked(blocks, lambda i, j, out: scales[i, j, 1] * out + scales[i, j, 0] * vectors[i, j]):
        return answer_logits(network, question)


def loss(*arguments: Any, question: Question, first: bool = False) -> Tensor:
    n = 1 if first else len(question[1])
    return nn.functional.cross_entropy(logits(*arguments, question)[:n], question[1][:n])
