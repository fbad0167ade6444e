"""Demonstration choice: which support examples stand before a query."""

from __future__ import annotations

import heapq
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError

Features = Mapping[str, NDArray[np.float32]]  # a unit vector `[F]` for each example, by its id
_MOST_COMPARED = 20_000  # examples whose similarities to each other take 1.6 GB


@dataclass(frozen=True, eq=False)
class DemonstrationSampler:
    """Demonstrations from the support split, never the query itself, by one of `CHOICES`.

    The draw depends on the seed, the query's id and the purpose only, not on the order of calls. `features` hold the
    support and the queries where the choice compares them. `share` is the share of the support that facility location
    sees, another one each draw.
    """

    task: Task
    seed: int
    choice: str = "random"
    features: Features = field(default_factory=dict)
    share: float = 1.0

    @cached_property
    def _chooser(self) -> Choice:
        return CHOICES[self.choice](self.task, self.features, self.share)

    def draw(self, query: Example, shots: int, purpose: str) -> tuple[Example, ...]:
        """`shots` demonstrations for `query`; `purpose` keeps the scan's and the evaluation's draws apart."""
        if not shots:
            return ()
        check_shots(self.task, shots)
        pick = random.Random(f"{self.seed}/{purpose}/{query.id}")
        return tuple(self._chooser.draw(query, shots, pick))


def check_shots(task: Task, shots: int) -> None:
    """Raise `StvError` where a support split has fewer demonstrations beside a query of its own."""
    if shots >= len(task.support):
        raise StvError(
            f"{shots} demonstrations were asked for, but the support split of {task.name} has "
            f"{len(task.support)} and one may be the query; lower the shots or raise dataset.support."
        )


class Choice(ABC):
    """A way to choose demonstrations; what does not depend on the query is made once."""

    def __init__(self, task: Task, features: Features, share: float) -> None:
        self.task = task
        self.support = task.support
        self.features = features
        self.share = share

    @abstractmethod
    def draw(self, query: Example, shots: int, pick: random.Random) -> list[Example]:
        """`shots` different support examples other than `query`, in the order of the prompt."""

    @cached_property
    def rows(self) -> NDArray[np.float32]:
        """Features of the support `[N, F]`."""
        return np.stack([self.row(example) for example in self.support])

    def row(self, example: Example) -> NDArray[np.float32]:
        """Features of one example `[F]`."""
        if example.id not in self.features:
            raise StvError(
                f"Example {example.id} of {self.task.name} has no features to be compared by; "
                "hand the sampler those of demonstration_features."
            )
        return self.features[example.id]


class Random(Choice):
    """Every support example alike."""

    def draw(self, query: Example, shots: int, pick: random.Random) -> list[Example]:
        # One more than needed stands in for the query where it is drawn: no scan of the split for every query.
        return _without(query, pick.sample(self.support, shots + 1), shots)


class Balanced(Choice):
    """One example of each answer in turn, answers and examples in random order: counts differ by one at most.

    An answer with too few examples leaves its turns to the others.
    """

    @cached_property
    def groups(self) -> list[list[Example]]:
        """Support examples by the answer that a prompt shows, the first."""
        groups: dict[str, list[Example]] = {}
        for example in self.support:
            groups.setdefault(example.answers[0], []).append(example)
        return list(groups.values())

    def draw(self, query: Example, shots: int, pick: random.Random) -> list[Example]:
        groups = pick.sample(self.groups, min(len(self.groups), shots + 1))
        shuffled = [pick.sample(group, min(len(group), shots + 1)) for group in groups]
        turns = zip_longest(*(_without(query, group, shots) for group in shuffled))
        drawn = [example for example in chain.from_iterable(turns) if example is not None][:shots]
        return pick.sample(drawn, shots)  # answers in turn would be a pattern to copy


class Nearest(Choice):
    """The most similar by cosine, the nearest last: next to the query. Equally similar ones in random order."""

    def draw(self, query: Example, shots: int, pick: random.Random) -> list[Example]:
        similarity = np.round(self.rows @ self.row(query), 5)  # equal rows differ by rounding alone
        tie = np.random.default_rng(pick.getrandbits(64)).random(len(similarity))
        order = np.lexsort((tie, -similarity))[: shots + 1]
        return _without(query, (self.support[i] for i in order), shots)[::-1]


class FacilityLocation(Choice):
    """The examples that together cover the support best: one set for every query, where `share` is 1.

    With a lower share they come from that share of the support, drawn for each query, and cover all of it. A query
    that is in the set is replaced by the next in the greedy order.
    """

    def __init__(self, task: Task, features: Features, share: float) -> None:
        super().__init__(task, features, share)
        if len(self.support) > _MOST_COMPARED:
            raise StvError(
                f"demonstrations.choice=facility_location compares all of {task.name}'s {len(self.support)} support "
                f"examples; lower dataset.support to {_MOST_COMPARED} or fewer."
            )
        self.similarity = self.rows @ self.rows.T
        self.order: list[int] = []

    def draw(self, query: Example, shots: int, pick: random.Random) -> list[Example]:
        return _without(query, (self.support[i] for i in self._greedy(shots + 1, pick)), shots)

    def _greedy(self, n: int, pick: random.Random) -> list[int]:
        everyone = range(len(self.support))
        if self.share < 1:
            seen = pick.sample(everyone, max(round(self.share * len(everyone)), n))
            return facility_location(self.similarity, n, seen)
        if len(self.order) < n:
            self.order = facility_location(self.similarity, n, everyone)
        return self.order


CHOICES: dict[str, type[Choice]] = {
    "random": Random,
    "balanced": Balanced,
    "nearest_question": Nearest,
    "nearest_image": Nearest,
    "facility_location": FacilityLocation,
}


def facility_location(similarity: NDArray[Any], n: int, candidates: Iterable[int]) -> list[int]:
    """`n` of `candidates`, by greedy choice, that maximise the sum over all i of max_j `similarity[i, j]`.

    `similarity` is symmetric `[N, N]`, of cosines: at least -1. Lazy (Minoux 1978): as gains only shrink, a candidate
    is looked at again only while its last gain is the largest. Ties go to the lowest index.
    """
    covered = np.full(len(similarity), -1.0, dtype=similarity.dtype)
    bounds = [(-np.inf, j) for j in candidates]  # (-gain when last looked at, candidate)
    heapq.heapify(bounds)
    order: list[int] = []
    while len(order) < n:
        _, j = heapq.heappop(bounds)
        # Two examples that are nearest to each other gain the same; rounding must not decide between them.
        gain = round(float((np.maximum(similarity[j], covered) - covered).sum(dtype=np.float64)), 4)
        if bounds and (-gain, j) > bounds[0]:
            heapq.heappush(bounds, (-gain, j))
            continue
        order.append(j)
        covered = np.maximum(similarity[j], covered)
    return order


def _without(query: Example, examples: Iterable[Example], n: int) -> list[Example]:
    return list(islice((example for example in examples if example.id != query.id), n))
