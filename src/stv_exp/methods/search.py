"""What a search is: a `How` that asks the model, and what it is handed to ask it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from stv_exp.errors import StvError
from stv_exp.methods.choice import How

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from stv_exp.artefacts.bank import Bank
    from stv_exp.data.task import Example

_BASE = ("policy.steps", "policy.queries", "policy.budget", "policy.reward", "policy.cache_bytes", "insertion.when")


class Problem(Protocol):
    """A search in progress: its state, and the model's answers to what is tried on zero-shot support queries.

    `logits` are the search's own (see `Search.start`); this is `step` of `steps`, from 0; `history` holds the curves.
    """

    bank: Bank
    logits: nn.Parameter
    generator: Generator
    step: int
    steps: int

    @property
    def support(self) -> Sequence[Example]: ...

    @property
    def history(self) -> Mapping[str, list[float]]: ...

    def rewards(self, queries: Sequence[Example], choices: Tensor) -> Tensor:
        """Mean log-likelihood of the answer tokens `[Q, S]` under choices `[Q or 1, S, K]`, without a gradient."""
        ...

    def mixed_rewards(self, queries: Sequence[Example], shares: Tensor) -> Tensor:
        """The same `[Q, S]` with every candidate (and the location's own activation, last) entering by its share.

        `shares [Q or 1, S, K, M (+ 1)]`; differentiable in them.
        """
        ...

    def record(self, **values: float) -> None:
        """Keep the curves' values of this step."""
        ...


class Search(How):
    """A search over choices, one a location, by their reward on support queries. Its state is `logits`.

    Its budget is `policy.steps` steps, or as many as `policy.budget` token-forwards of candidates pay for. One that
    takes no steps, all of it in `decide`, has its own `affordable_steps`.
    """

    reads: ClassVar[tuple[str, ...]] = _BASE
    differentiates: ClassVar[bool] = False  # a step runs backward too, which costs two forwards more

    @property
    def may_decline(self) -> bool:
        return self.config.bank.identity

    def start(self, bank: Bank) -> Tensor:
        """The logits of the uninformed search."""
        raise NotImplementedError

    def step(self, problem: Problem, queries: Sequence[Example]) -> Tensor | None:
        """One step: a loss whose gradient updates the logits (Adam), or None where it has updated them itself."""
        raise NotImplementedError

    def decide(self, problem: Problem) -> Tensor:
        """The choice at each location `[K]` once the search is over, or the shares `[K, C]` of its candidates."""
        return problem.logits.detach().argmax(-1)

    def affordable_steps(self, n_support: int, n_locations: int, tokens: float) -> int:
        """Steps that the budget pays for beside the final decision, with answers of `tokens` tokens in the mean.

        Raises `StvError` where there is none.
        """
        policy, each = self.config.policy, self.step_evaluations()
        final = self.final_evaluations(n_support, n_locations)
        if policy.budget:
            steps = int((policy.budget / tokens - final) / (each * (3 if self.differentiates else 1)))
        else:
            steps = policy.steps - -(-final // each)
        if steps < 1:
            raise StvError(
                f"policy.steps={policy.steps} (or policy.budget) x {each} evaluations leave none after the final "
                f"selection's {final}; raise policy.steps or lower policy.selection_draws."
            )
        return steps

    def asked(self, steps: int, n_support: int) -> int:
        """Support queries that so many steps and `decide` ask, each of which has a prefix to compute."""
        return max(min(steps * self.config.policy.queries, n_support), self.final_queries(n_support))

    def token_forwards(
        self, steps: int, n_support: int, n_locations: int, prefix: float, tried: float, other: float
    ) -> float:
        """Of so many steps and `decide`: a query's `prefix` once, candidates of `tried` tokens in steps, or `other`."""
        candidates = steps * self.step_evaluations() * (3 if self.differentiates else 1)
        others = self.watched(steps) + self.final_evaluations(n_support, n_locations)
        return self.asked(steps, n_support) * prefix + candidates * tried + others * other

    def watched(self, steps: int) -> int:
        """Candidates that so many steps try for the curves alone, at most."""
        return 0

    def step_evaluations(self) -> int:
        """Candidate evaluations of a step."""
        return self.config.policy.queries * self.config.policy.samples

    def final_evaluations(self, n_support: int, n_locations: int) -> int:
        """Candidate evaluations of `decide`."""
        return self.final_queries(n_support) * self.final_candidates(n_locations)

    def final_queries(self, n_support: int) -> int:
        """Support queries that `decide` asks."""
        return 0

    def final_candidates(self, n_locations: int) -> int:
        """Candidates under which `decide` asks each of them."""
        return 0

    def final_passes(self, n_support: int, n_locations: int) -> int:
        """Calls of the model in `decide`, for what a plan reckons."""
        return 0

    def check(self) -> None:
        policy = self.config.policy
        if "policy.samples" in self.reads and policy.samples < 2:
            raise StvError(f"policy.samples={policy.samples} leaves nothing to compare; it must be at least 2.")
