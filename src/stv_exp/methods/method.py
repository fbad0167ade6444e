"""A method: its three choices under a job's settings, and everything that follows from what they declare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from stv_exp.config import Config, FitConfig, setting
from stv_exp.errors import StvError
from stv_exp.methods.choice import Choice, Grid, How, What, Where
from stv_exp.methods.registry import KINDS, find, source
from stv_exp.methods.search import Search
from stv_exp.methods.trained import Trained

SCAN = ("scan.pairs", "scan.shots", "method.site", "demonstrations.choice")
READING = ("scan.per_label", "method.site")
FIT = tuple(f"fit.{field.name}" for field in fields(FitConfig))
INSERTION = ("insertion.mode", "insertion.weight", "insertion.norm_preserving")
# The sections of settings that belong to methods.
OWN = ("method", "fit", "demonstrations", "scan", "bank", "policy", "insertion", "train")
_NAMES = ("method.name", "method.where", "method.what", "method.how")
_FREE = ("policy.cache_bytes",)  # changes no result, so no signature


@dataclass(frozen=True)
class Method:
    """`where`, `what` and `how` of a job, or the `edit` that it trains."""

    config: Config
    where: Where
    what: What
    how: How
    edit: Trained

    @classmethod
    def of(cls, config: Config) -> Method:
        """The method that `config.method` names; raises `StvError` for a choice that is unknown."""
        made: dict[str, Any] = {kind: find(kind, getattr(config.method, kind))(config) for kind in KINDS}
        return cls(config, **made)

    @property
    def choices(self) -> tuple[Choice, ...]:
        return (self.where, self.what, self.how, self.edit)

    @property
    def inserts(self) -> bool:
        """Whether there is a vector to find; else the method is prompting or reading alone."""
        return self.where.inserts

    @property
    def classifies(self) -> bool:
        """Whether answers are labels by what the model's activations are close to."""
        return self.how.classifies

    @property
    def trains(self) -> bool:
        """Whether there is an edit with parameters to train."""
        return self.edit.trains

    @property
    def learns(self) -> bool:
        """Whether anything is of the support: a vector, an edit, demonstrations, or the queries that validate."""
        asked = self.config.method.shots + self.config.dataset.validation
        return self.inserts or self.classifies or self.trains or asked > 0

    @cached_property
    def reads(self) -> frozenset[str]:
        """Every setting of the methods' sections that this method reads."""
        keys = {*_NAMES, *self.prompting(), *(key for choice in self.choices for key in choice.reads)}
        if self.learns:
            keys |= {*FIT}
        if self.inserts:
            keys |= {*SCAN, *INSERTION, "insertion.when"}
        if self.classifies:
            keys |= {*READING}
        return frozenset(keys)

    @property
    def signed(self) -> frozenset[str]:
        """Those of `reads` that may change the result."""
        return self.reads - {*_FREE}

    def prompting(self) -> tuple[str, ...]:
        """The settings of the evaluation's prompts."""
        return ("method.shots", "demonstrations.choice") if self.config.method.shots else ("method.shots",)

    @property
    def location_search(self) -> tuple[str, ...]:
        """Stages that have to run before the locations are known; none where nothing looks for them."""
        return self.where.location_search or self.how.location_search

    def versions(self) -> dict[str, int]:
        """Of its choices by kind, where it is not the first; that of one from outside is a number made of its code."""
        found = {choice.kind: int(source(type(choice))[:6] or "0", 16) or choice.version for choice in self.choices}
        return {kind: version for kind, version in found.items() if version > 1}

    def check(self) -> None:
        """Raise `StvError` for choices that do not go together and for settings that cannot work."""
        for choice in self.choices:
            if need := choice.needs(self.where, self.what, self.how):
                names = [f"{kind}={getattr(self.config.method, kind)}" for kind in ("what", "how")]
                raise StvError(
                    f"method.where={self.config.method.where} does not go with {', '.join(names)}; use {need}."
                )
        for choice in self.choices:
            choice.check()
        insertion = self.config.insertion
        if {*INSERTION} <= self.reads and insertion.mode == "replace" and insertion.weight != 1:
            raise StvError(
                f"insertion.weight={insertion.weight} changes nothing where insertion.mode=replace; "
                "use insertion.mode=add or blend."
            )

    def check_grid(self, grid: Grid) -> None:
        """Raise `StvError` for settings that do not fit a model."""
        for choice in self.choices:
            choice.check_grid(grid)

    def effects_settings(self) -> dict[str, Any]:
        """What a `Where` that asks the model depends on beside its scan."""
        settings = {key: setting(self.config, key) for key in self.where.asks if key not in _FREE}
        return _sourced(self.where, settings)

    def bank_settings(self) -> dict[str, Any]:
        """What the bank depends on beside its scan."""
        return {**self._signed(self.where), **self._signed(self.what), "mode": self.config.insertion.mode}

    def search_settings(self) -> dict[str, Any]:
        """What the search depends on beside its bank."""
        edit = {key: setting(self.config, key) for key in INSERTION}
        return {**self._signed(self.how), **edit, **self.cap()}

    def classifier_settings(self) -> dict[str, Any]:
        """What a classifier's answers depend on beside what it has read."""
        return self._signed(self.how)

    def train_settings(self) -> dict[str, Any]:
        """What the training depends on beside model and data."""
        return {**self._signed(self.edit), **self.cap()}

    def cap(self) -> dict[str, int]:
        """The budget where there is one and steps to save it by: other results do not depend on it."""
        stepwise = isinstance(self.how, Search) or bool(self.edit.losses)
        return {"budget": self.config.budget} if self.config.budget and stepwise else {}

    def _signed(self, choice: Choice) -> dict[str, Any]:
        return _sourced(choice, {key: value for key, value in choice.settings().items() if key not in _FREE})


def _sourced(choice: Choice, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings beside the choice's name, its version from the second on, and its code if it is not of the package."""
    named: dict[str, Any] = {choice.kind: choice.name, **settings}
    named |= {"version": choice.version} if choice.version > 1 else {}
    return named | ({"source": code} if (code := source(type(choice))) else {})


def refuse_unread(keys: Iterable[str], methods: Sequence[Method]) -> None:
    """Raise `StvError` for a setting of the methods' sections that none of these reads."""
    reads = frozenset[str]().union(*(method.reads for method in methods))
    names = ",".join(dict.fromkeys(method.config.method.name for method in methods))
    for key in keys:
        section, *name = key.split(".")[:2]
        if section in OWN and name and f"{section}.{name[0]}" not in reads:
            raise StvError(
                f"{key} is not read by method={names}; leave it out, or choose a method that reads it. "
                f"Read are {', '.join(sorted(reads - {*_NAMES}))}."
            )
