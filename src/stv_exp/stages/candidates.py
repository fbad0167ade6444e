"""What a search draws from: distributions over insertions, with the gradient of their log-probability."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Generator, Tensor, nn

from stv_exp.models.heads import Insertion
from stv_exp.stages.bank import Bank


class Candidates(nn.Module):
    """A distribution over choices `[..., K]`, one entry a location; `logits` start at the uninformed search."""

    logits: nn.Parameter

    def __init__(self, bank: Bank, mode: str) -> None:
        super().__init__()
        self.bank = bank
        self.mode = mode

    @abstractmethod
    def sample(self, queries: int, samples: int, generator: Generator, logits: Tensor | None = None) -> Tensor:
        """Seeded choices `[Q, S, K]` under `logits` (default: the current ones)."""

    @abstractmethod
    def log_prob(self, choices: Tensor) -> Tensor:
        """Log-probability `[Q, S]`, differentiable in the logits."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Mean entropy a location, in nats (scalar)."""

    @abstractmethod
    def insertion(self, choices: Tensor) -> Insertion:
        """The insertion that choices `[..., K]` stand for."""


class ClusterCandidates(Candidates):
    """One categorical a location over its M centroids (STV), and over "leave this head alone" with `identity`."""

    candidates: Tensor

    def __init__(self, bank: Bank, mode: str, identity: bool = False) -> None:
        super().__init__(bank, mode)
        k, m, d = bank.centroids.shape
        rest = torch.zeros(k, int(identity), d)
        self.identity = m if identity else -1
        self.register_buffer("candidates", torch.cat([bank.centroids, rest], 1))
        self.logits = nn.Parameter(torch.zeros(k, m + int(identity)))

    def sample(self, queries: int, samples: int, generator: Generator, logits: Tensor | None = None) -> Tensor:
        probabilities = (self.logits if logits is None else logits).detach().softmax(-1)
        flat = probabilities.multinomial(queries * samples, replacement=True, generator=generator)
        return flat.T.unflatten(0, (queries, samples))

    def log_prob(self, choices: Tensor) -> Tensor:
        table = self.logits.log_softmax(-1).expand(*choices.shape, -1)
        return table.gather(-1, choices[..., None])[..., 0].sum(-1)

    def entropy(self) -> Tensor:
        log_p = self.logits.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1).mean()

    def insertion(self, choices: Tensor) -> Insertion:
        vectors = self.candidates[torch.arange(choices.shape[-1]), choices]
        active = choices != self.identity if self.identity >= 0 else None
        return Insertion(self.bank.locations, vectors, active, self.mode)


class MaskCandidates(Candidates):
    """One Bernoulli a head over inserting its mean or not (MTV): logits start at -1, p within [1e-3, 1 - 1e-3]."""

    def __init__(self, bank: Bank, mode: str) -> None:
        super().__init__(bank, mode)
        self.logits = nn.Parameter(torch.full((len(bank.locations),), -1.0))

    def _p(self, logits: Tensor | None = None) -> Tensor:
        return (self.logits if logits is None else logits).sigmoid().clamp(1e-3, 1 - 1e-3)

    def sample(self, queries: int, samples: int, generator: Generator, logits: Tensor | None = None) -> Tensor:
        p = self._p(logits).detach().expand(queries, samples, -1)
        return p.bernoulli(generator=generator).long()

    def log_prob(self, choices: Tensor) -> Tensor:
        p = self._p()
        return torch.where(choices == 1, p, 1 - p).log().sum(-1)

    def entropy(self) -> Tensor:
        p = self._p()
        return -(p * p.log() + (1 - p) * (1 - p).log()).mean()

    def insertion(self, choices: Tensor) -> Insertion:
        vectors = self.bank.centroids[:, 0].expand(*choices.shape, -1)
        return Insertion(self.bank.locations, vectors, choices == 1, self.mode)
