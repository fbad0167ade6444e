"""Sparse attention vectors (arXiv 2412.00142) as published: heads read one query at a time, ranked, and a vote.

It is handed the projections, prompts and labels; nothing of `stv_exp` is used. What differs from the published code is
so on purpose, in `stv_exp` and here:

- `stable`: of heads with equal counts the first in the model are taken; there whichever numpy's quicksort puts last.
- Labels are those of the support's first answers; there a file's own column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

Inputs = Mapping[str, Tensor]


@torch.no_grad()
def heads(network: nn.Module, projections: Sequence[nn.Module], n_heads: int, prompt: Inputs) -> Tensor:
    """`[L * H, D]`: every head's activation at the prompt's last token."""
    found: list[Tensor] = []
    hooks = [p.register_forward_pre_hook(lambda _, args: found.append(args[0][0, -1])) for p in projections]
    network(**prompt, use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.cat([row.view(n_heads, -1) for row in found])


def encode(examples: list[tuple[Tensor, str]], k: int, stable: bool = True) -> tuple[dict[str, Tensor], list[int]]:
    """Means `[L * H, D]` of each label in the order of its first example, and the `k` heads that count most successes.

    `examples` are heads' activations with a label.
    """
    means = {label: torch.stack([a for a, own in examples if own == label]).mean(0) for _, label in examples}
    counts = np.zeros(len(examples[0][0]), dtype=int)
    for activations, label in examples:
        for head, activation in enumerate(activations):
            counts[head] += vote(activation, {name: mean[head] for name, mean in means.items()}) == label
    order = np.argsort(-counts, kind="stable")[:k] if stable else np.argsort(counts)[-k:][::-1]
    return means, [int(head) for head in order]


def vote(activation: Tensor, means: Mapping[str, Tensor]) -> str:
    """The label whose mean has the largest cosine similarity."""
    return max(means, key=lambda label: float(torch.cosine_similarity(means[label], activation, dim=0)))


def classify(activations: Tensor, means: Mapping[str, Tensor], top: Sequence[int]) -> str:
    """The label that most of the top heads vote for; of equal counts the one that is counted first."""
    votes = [vote(activations[head], {name: mean[head] for name, mean in means.items()}) for head in top]
    return Counter(votes).most_common(1)[0][0]
