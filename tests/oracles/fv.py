"""Function vectors (Todd et al., ICLR 2024) as published: a whole forward for every head of every prompt, batch 1.

It is handed projections, layers, prompts and answers; nothing of `stv_exp` is used. What differs from the published
code is so on purpose, in `stv_exp` and here:

- `bias`: there each of the K heads' images has the projection's bias, which is so added K times; ours have none. An
  edited layer's projection keeps its bias; there some families' layers are computed anew without it.
- Prompts are handed over: ours pass answers on in a circle, so that no demonstration keeps its own; there a random
  permutation may leave some. Queries are any of the support; there those that 10 shots get right.
- The layer is picked on the support by the answer's likelihood; there each layer's accuracy on the test is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Inputs = Mapping[str, Tensor]
Question = tuple[Inputs, Tensor]  # a prompt [1, T] and its answer's tokens [N]


@torch.no_grad()
def indirect_effects(
    network: nn.Module, projections: Sequence[nn.Module], means: Tensor, questions: Sequence[Question]
) -> Tensor:
    """`[L, H]`: what the probability of the answer's first token gains where one head is replaced by its mean."""

    def probability(question: Question) -> Tensor:
        return network(**question[0], use_cache=False).logits[0, -1].softmax(-1)[question[1][0]]

    before = [probability(question) for question in questions]
    effects = torch.zeros(len(questions), *means.shape[:2])
    for layer, projection in enumerate(projections):
        for head in range(means.shape[1]):
            with replaced(projection, head, means[layer, head]):
                for i, question in enumerate(questions):
                    effects[i, layer, head] = probability(question) - before[i]
    return effects.mean(0)


@contextmanager
def replaced(projection: nn.Module, head: int, mean: Tensor) -> Iterator[None]:
    """One head's slice of what a projection reads is `mean` at the last token."""

    def hook(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        heads = args[0].clone().unflatten(-1, (-1, len(mean)))
        heads[0, -1, head] = mean
        return (heads.flatten(-2),)

    handle = projection.register_forward_pre_hook(hook)
    yield
    handle.remove()


@torch.no_grad()
def function_vector(
    projections: Sequence[nn.Module], means: Tensor, effects: Tensor, k: int, bias: bool = False
) -> tuple[Tensor, list[tuple[int, int]]]:
    """The sum `[hidden]` of what the top `k` heads' means write, and those heads."""
    top = [divmod(int(i), effects.shape[1]) for i in effects.flatten().topk(k).indices]
    total = torch.zeros(())
    for layer, head in top:
        x = torch.zeros(means.shape[1:])
        x[head] = means[layer, head]
        written = projections[layer](x.flatten()[None])[0]
        total = total + (written if bias or projections[layer].bias is None else written - projections[layer].bias)
    return total, top


@torch.no_grad()
def likelihoods(
    network: nn.Module, layers: Sequence[nn.Module], change: Callable[[int, Tensor], Tensor], questions: list[Question]
) -> Tensor:
    """`[L]`: mean log-likelihood of the answers' tokens where one layer's output `h` is `change(layer, h)`.

    At the last prompt token alone, whichever tokens of the answer follow.
    """

    def scored(layer: int, question: Question) -> Tensor:
        prompt, answer = question
        last = prompt["input_ids"].shape[1] - 1
        ids = torch.cat([prompt["input_ids"], answer[None, :-1]], 1)

        def hook(_: nn.Module, args: object, output: Tensor) -> Tensor:
            output = output.clone()
            output[0, last] = change(layer, output[0, last])
            return output

        handle = layers[layer].register_forward_hook(hook)
        inputs = {**prompt, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        logits = network(**inputs, use_cache=False).logits[0, last:]
        handle.remove()
        return -torch.nn.functional.cross_entropy(logits, answer)

    return torch.stack([torch.stack([scored(at, q) for q in questions]).mean() for at in range(len(layers))])
