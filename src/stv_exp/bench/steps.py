"""Steps of a search: one by hand, and all of them in the training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import TypeVar

from stv_exp.artefacts.bank import Bank
from stv_exp.bench.subject import Subject
from stv_exp.bench.timing import now
from stv_exp.config import Config
from stv_exp.data.task import Example
from stv_exp.methods.method import Method
from stv_exp.methods.search import Search
from stv_exp.stages.search import CandidateSearch, fit

C = TypeVar("C", bound=CandidateSearch)


class Alone(CandidateSearch):
    """A search outside the training loop, whose curves go nowhere."""

    def record(self, **values: float) -> None:
        for name, value in values.items():
            self.history[name].append(value)


class Timed(CandidateSearch):
    """Notes when each step begins: Lightning and the data loader are part of what a step costs."""

    begun: list[float]
    taken: list[float]

    def on_train_batch_start(self, batch: list[Example], batch_idx: int) -> None:
        self.begun.append(now())
        self.taken.append(self.scorer.backbone.token_forwards)

    @property
    def step_seconds(self) -> float:
        """Median of the steps."""
        return median(end - start for start, end in pairwise(self.begun))

    @property
    def token_forwards_per_second(self) -> float:
        """Over all steps but the last."""
        return (self.taken[-1] - self.taken[0]) / (self.begun[-1] - self.begun[0])


def by_hand(subject: Subject, bank: Bank, config: Config) -> Callable[[], object]:
    """A step of a search on always the same queries, their prefixes computed and its first step done before."""
    module = _made(Alone, subject, bank, config, config.policy.queries)
    optimizer, queries = module.configure_optimizers(), module.queries()[0]

    def step() -> None:
        loss = module.how.step(module, queries)
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    module.step = 1  # of those that do not look at how the search is going
    return step


def in_the_loop(subject: Subject, bank: Bank, config: Config) -> Timed:
    """A whole search with its training loop, over no more queries than it asks: all prefixes are computed before."""
    module = _made(Timed, subject, bank, config, config.policy.steps * config.policy.queries)
    module.begun, module.taken = [], []
    fit(module)
    return module


def _made(kind: type[C], subject: Subject, bank: Bank, config: Config, support: int) -> C:
    how = Method.of(config).how
    assert isinstance(how, Search)
    task = replace(subject.task, support=subject.task.support[:support])
    module = kind(subject.backbone, task, bank, how, config)
    module.prepare()
    return module
