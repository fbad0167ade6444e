"""Task vectors (Hendel et al., 2023) as published: the state behind each layer, put into a query that stands alone.

It is handed layers, prompts and answers; nothing of `stv_exp` is used. What differs from the published code is so on
purpose, in `stv_exp` and here:

- The state is the mean over many contexts, the published variant `multi_context`; the other one there is the mean over
  two dummy queries behind one context. There contexts that show or ask the query are left out for it; ours has one
  vector for all queries, of the support alone.
- `by`: the layer is the best by the likelihood of the answer's tokens; there by the accuracy of its first token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tests.oracles.fv import Question, likelihoods

Inputs = Mapping[str, Tensor]


@torch.no_grad()
def states(network: nn.Module, layers: Sequence[nn.Module], prompts: list[Inputs]) -> Tensor:
    """`[L, hidden]`: what leaves each layer at the last token, its mean over prompts with demonstrations."""
    found: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _, args, output: found.append(output[0, -1])) for layer in layers]
    for prompt in prompts:
        network(**prompt, use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.stack(found).view(len(prompts), len(layers), -1).mean(0)


def best_layer(
    network: nn.Module, layers: Sequence[nn.Module], states: Tensor, questions: list[Question], by: str = "likelihood"
) -> tuple[int, Tensor]:
    """The layer whose state answers the questions best, and all layers' scores `[L]`."""
    scores = likelihoods(network, layers, lambda layer, _: states[layer], questions)
    if by == "accuracy":
        scores = torch.stack([accuracy(network, layer, states[i], questions) for i, layer in enumerate(layers)])
    return int(scores.argmax()), scores


@torch.no_grad()
def accuracy(network: nn.Module, layer: nn.Module, state: Tensor, questions: list[Question]) -> Tensor:
    """The share of questions whose answer's first token is the most likely one."""

    def hook(_: nn.Module, args: object, output: Tensor) -> Tensor:
        return torch.cat([output[:, :-1], state.expand(len(output), 1, -1)], 1)

    handle = layer.register_forward_hook(hook)
    right = [network(**prompt, use_cache=False).logits[0, -1].argmax() == answer[0] for prompt, answer in questions]
    handle.remove()
    return torch.stack(right).float().mean()
