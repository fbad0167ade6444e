"""One categorical a location, over its M candidates and, where it may be left alone, over that too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor


def sample(logits: Tensor, queries: int, samples: int, generator: Generator) -> Tensor:
    """Seeded choices `[Q, S, K]` under logits `[K, C]`."""
    probabilities = logits.detach().softmax(-1)
    flat = probabilities.multinomial(queries * samples, replacement=True, generator=generator)
    return flat.T.unflatten(0, (queries, samples))


def log_prob(logits: Tensor, choices: Tensor) -> Tensor:
    """Log-probability `[...]` of choices `[..., K]`, differentiable in the logits `[K, C]`."""
    table = logits.log_softmax(-1).expand(*choices.shape, -1)
    return table.gather(-1, choices[..., None])[..., 0].sum(-1)


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy a location, in nats (scalar)."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean()
