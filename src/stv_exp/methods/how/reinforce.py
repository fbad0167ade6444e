"""REINFORCE (STV, step 3): reward -CE of the answer, advantage within each query's samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from stv_exp.errors import StvError
from stv_exp.methods.registry import register
from stv_exp.methods.search import Problem, Search

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from stv_exp.artefacts.bank import Bank
    from stv_exp.data.task import Example

REFERENCE_SAMPLES = 1  # draws a query from the uninformed search: the line that a policy has to beat


@register("reinforce")
class Reinforce(Search):
    """REINFORCE, one categorical a location over its candidates (and "leave it alone", with `bank.identity`)."""

    reads: ClassVar[tuple[str, ...]] = (
        *Search.reads,
        "policy.samples",
        "policy.lr",
        "policy.baseline",
        "bank.identity",
    )

    def start(self, bank: Bank) -> Tensor:
        k, m = bank.centroids.shape[:2]
        return bank.centroids.new_zeros(k, m + self.may_decline)

    def step(self, problem: Problem, queries: Sequence[Example]) -> Tensor:
        import torch

        n, samples = len(queries), self.config.policy.samples
        drawn = self.sample(problem.logits, n, samples, problem.generator)
        reference = self.sample(self.start(problem.bank), n, REFERENCE_SAMPLES, problem.generator)
        rewards = problem.rewards(queries, torch.cat([drawn, reference], 1))
        advantage = self.advantage(rewards[:, :samples])
        problem.record(
            reward=rewards[:, :samples].mean().item(),
            reward_random=rewards[:, samples:].mean().item(),
            entropy=self.entropy(problem.logits).item(),
        )
        return -(advantage * self.log_prob(problem.logits, drawn)).mean()

    def advantage(self, rewards: Tensor) -> Tensor:
        return BASELINES[self.config.policy.baseline](rewards)

    def watched(self, steps: int) -> int:
        return steps * self.config.policy.queries * REFERENCE_SAMPLES

    def sample(self, logits: Tensor, queries: int, samples: int, generator: Generator) -> Tensor:
        """Seeded choices `[Q, S, K]`."""
        from stv_exp.methods import categorical

        return categorical.sample(logits, queries, samples, generator)

    def log_prob(self, logits: Tensor, choices: Tensor) -> Tensor:
        """Log-probability `[Q, S]` of choices, differentiable in the logits."""
        from stv_exp.methods import categorical

        return categorical.log_prob(logits, choices)

    def entropy(self, logits: Tensor) -> Tensor:
        """Mean entropy a location, in nats."""
        from stv_exp.methods import categorical

        return categorical.entropy(logits)

    def check(self) -> None:
        super().check()
        if self.config.policy.baseline not in BASELINES:
            raise StvError(
                f"policy.baseline={self.config.policy.baseline} is unknown; choose one of {', '.join(BASELINES)}."
            )


def standardised(rewards: Tensor, eps: float = 1e-6) -> Tensor:
    """Advantages `(r - mean) / (std + eps)` within each query's samples, `[Q, S]` (STV and MTV)."""
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + eps)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Advantages `r - mean of the query's other samples`, `[Q, S]` (RLOO, arXiv 2402.14740)."""
    samples = rewards.shape[1]
    return (rewards - rewards.mean(1, keepdim=True)) * samples / (samples - 1)


BASELINES: dict[str, Callable[[Tensor], Tensor]] = {"standardised": standardised, "leave_one_out": leave_one_out}
