"""MTV (Huang et al., NeurIPS 2024) as its published code searches: a whole forward for every mask, nothing shared.

It is handed the projections, prompts, answers and masks; nothing of `stv_exp` is used. What differs from the published
code is so on purpose, in `stv_exp` and here:

- No prompt shows a query among its own demonstrations; there demonstrations are drawn from all of the training file.
- An edited layer's projection keeps its bias; there the layer's output is computed anew without it.
- Queries and selection items are handed over: ours go through a shuffled support, and the items are a sample of it;
  there each step draws one of 100 examples again, and the items are the first 50 of the file.
- The loss sums over masks, as there; ours is their mean, and Adam does not see a constant factor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

Inputs = Mapping[str, Tensor]
Question = tuple[Inputs, Tensor]  # a prompt [1, T] and its answer's tokens [N]
Loss = Callable[[Tensor, Question], Tensor]  # of one mask [L, H]


@torch.no_grad()
def mean_activations(network: nn.Module, projections: Sequence[nn.Module], heads: int, prompts: list[Inputs]) -> Tensor:
    """`[L, H, D]`: what the output projections read at the last token, its mean over prompts with demonstrations."""
    found: list[Tensor] = []
    hooks = [p.register_forward_pre_hook(lambda _, args: found.append(args[0][0, -1])) for p in projections]
    for prompt in prompts:
        network(**prompt, use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.stack(found).view(len(prompts), len(projections), heads, -1).mean(0)


@torch.no_grad()
def forward(
    network: nn.Module, projections: Sequence[nn.Module], means: Tensor, mask: Tensor, question: Question
) -> Tensor:
    """Logits `[N, V]` of the answer's tokens; heads of `mask` are replaced at the last prompt token and every later."""
    prompt, answer = question
    ids = torch.cat([prompt["input_ids"], answer[None, :-1]], 1)
    last = prompt["input_ids"].shape[1] - 1

    def replace(layer: int) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
        def hook(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            heads = args[0].clone().unflatten(-1, means.shape[1:])
            heads[0][last:, mask[layer]] = means[layer, mask[layer]]
            return (heads.flatten(-2),)

        return hook

    hooks = [projection.register_forward_pre_hook(replace(layer)) for layer, projection in enumerate(projections)]
    inputs = {**prompt, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    logits = network(**inputs, use_cache=False).logits[0, last:]
    for hook in hooks:
        hook.remove()
    return logits


def search(
    loss: Loss, shape: tuple[int, int], steps: Iterable[tuple[Question, Tensor]]
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Logits `[L, H]` at the end, and each step's probabilities `[L, H]` and losses `[S]` under its masks."""
    logits = [torch.full((shape[1],), -1.0, requires_grad=True) for _ in range(shape[0])]
    adam = torch.optim.Adam(logits, lr=0.1)
    history = []
    for question, masks in steps:
        p = torch.stack([torch.sigmoid(row).clamp(min=1e-3, max=1 - 1e-3) for row in logits])
        losses = torch.stack([loss(mask, question) for mask in masks])
        scaled = (losses - losses.mean()) / (losses.std() + 1e-3)
        log_probs = [torch.distributions.Bernoulli(p).log_prob(mask.float()) for mask in masks]
        adam.zero_grad()
        sum((log_prob * s).sum() for log_prob, s in zip(log_probs, scaled, strict=True)).backward()
        adam.step()
        history.append((p.detach(), losses))
    return torch.stack(logits).detach(), history


def drawable(logits: Tensor, threshold: float) -> Tensor:
    """Probabilities that the final masks are drawn with: not clamped as in the loop; `threshold` for Idefics2 alone."""
    p = torch.sigmoid(logits).clamp(min=0, max=1)
    return torch.nn.functional.threshold(p, threshold, 0) if threshold else p


def best(loss: Loss, masks: Tensor, items: Sequence[Question]) -> Tensor:
    """The mask `[L, H]` of `masks [N, L, H]` with the lowest mean loss on the items; the first of equal ones."""
    return min(masks, key=lambda mask: float(sum(loss(mask, item) for item in items)) / len(items))
