"""The training that I2CL, LIVE, MimIC and HiFICL share, written plainly: AdamW, warm-up, cosine; one query a step.

Differences kept on purpose:
- `whole`: the published code of LIVE, MimIC and HiFICL (for Idefics) takes the cross-entropy of every token of the
  sequence, here that of the answer's tokens and of what ends it.
- I2CL's own cosine is counted from the first step; here, as in the others, from the end of the warm-up.
- LIVE and MimIC draw the teacher's demonstrations anew each epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Question = tuple[dict[str, Tensor], Tensor]  # the model's inputs for one prompt, and the answer's tokens


def sequence(question: Question) -> dict[str, Tensor]:
    """The prompt and its answer but the last token, which nothing follows."""
    prompt, answer = question
    ids = torch.cat([prompt["input_ids"], answer[None, :-1]], 1)
    return {**prompt, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


def answered(question: Question) -> dict[str, Tensor]:
    """The prompt and all of its answer."""
    prompt, answer = question
    ids = torch.cat([prompt["input_ids"], answer[None]], 1)
    return {**prompt, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


def answer_logits(network: Any, question: Question) -> Tensor:
    """Logits `[N, V]` at the tokens before each of the answer's."""
    return network(**sequence(question), use_cache=False).logits[0, -len(question[1]) :]


def ce(network: Any, question: Question, whole: bool = False) -> Tensor:
    if not whole:
        return cross_entropy(answer_logits(network, question), question[1])
    inputs = answered(question)
    return cross_entropy(network(**inputs, use_cache=False).logits[0, :-1], inputs["input_ids"][0, 1:])


def optimise(
    loss: Callable[[int], Tensor],
    groups: Sequence[dict[str, Any]],
    steps: int,
    warmup: int,
    clip: float,
) -> list[float]:
    """The losses of `steps` steps, `loss(i)` the ith; parameters are changed in place."""
    optimizer, rates, found = torch.optim.AdamW(list(groups)), [group["lr"] for group in groups], []
    for step in range(steps):
        progress = (step - warmup) / max(1, steps - warmup)
        factor = step / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * progress))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        optimizer.zero_grad()
        value = loss(step)
        value.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], clip)
        optimizer.step()
        found.append(value.item())
    return found
