"""Which runs are one row: a method and everything that varies among its runs but the task and the seed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stv_exp.errors import printable
from stv_exp.report.record import UNKNOWN, Record
from stv_exp.report.tasks import is_fit
from stv_exp.report.text import brief, listed, shown

METHOD, MODEL = "method.name", "model.name"


@dataclass(frozen=True)
class Rows:
    """The rows that runs belong to; `shared` are settings that are told wherever they vary, beside a method's own."""

    records: Sequence[Record]
    tasks: Sequence[str]
    shared: Collection[str] = ()

    @cached_property
    def varying(self) -> dict[str, list[str]]:
        """By method, the settings that tell its runs apart.

        A method's own vary among its runs; those of model and dataset among any, as all are compared with all.
        """
        everywhere = self._vary(self.records, self._is_shared)
        by_method = {record.method: [r for r in self.records if r.method == record.method] for record in self.records}
        told = {method: [*_needed(self._vary(own, _is_own), own), *everywhere] for method, own in by_method.items()}
        return {method: [key for key in keys if key not in self.benchmarks] for method, keys in told.items()}

    @cached_property
    def benchmarks(self) -> dict[str, dict[str, Any]]:
        """Settings that each benchmark has one value of, such as its template: by setting, then by benchmark."""
        found = {}
        for key in self._vary(self.records, lambda key: is_fit(key) or _is_source(key)):
            own = [r for r in self.records if not _is_source(key) or _learns(r)]
            values = {str(r.settings["dataset.name"]): r.settings.get(key) for r in own}
            if all(r.settings.get(key) == values[str(r.settings["dataset.name"])] for r in own):
                found[key] = values
        return found

    def labels(self, selected: Collection[str] = ()) -> list[str]:
        """A label a run: `stv k=16 model=hf/x version=3`; runs that nothing tells apart are rows of their own.

        What is `selected` is left out of it: it is told elsewhere.
        """
        named = [" ".join(self._words(record, selected)) for record in self.records]
        keys = [self._place(i, label, selected) for i, label in enumerate(named)]
        twice = {key for key, n in Counter(keys).items() if n > 1}
        return [
            f"{label} run={printable(record.folder.name)}".lstrip() if key in twice else label
            for label, key, record in zip(named, keys, self.records, strict=True)
        ]

    def models(self) -> list[str]:
        """A model a run: its name, with the checkpoint where one name has several."""
        return [self._model(record) for record in self.records]

    def notes(self, labels: Sequence[str]) -> list[str]:
        """Sentences on rows that one would have expected to be one, and on settings that came with a benchmark."""
        found = []
        if versions := self._distinct(self._version):
            found.append(
                f"Runs of {len(versions)} versions of the code are rows of their own: {_told('version', versions)}."
            )
        if models := self._distinct(self._checkpoint):
            found.append(
                f"Runs of several checkpoints behind one name are rows of their own: {_told('model', models)}."
            )
        if twice := [label for label in labels if " run=" in f" {label}"]:
            found.append(f"Runs with the same settings, task and seed are rows of their own: {listed(twice)}.")
        return found + [_own_values(key, values) for key, values in self.benchmarks.items() if "template" not in key]

    def _place(self, i: int, label: str, selected: Collection[str]) -> tuple[str, ...]:
        """What may be there once: a row's task and seed (of each of the settings that are chosen from)."""
        record = self.records[i]
        chosen = [shown(record.settings.get(key)) for key in selected]
        return (label, self._model(record), self.tasks[i], str(record.seed), *chosen)

    def _words(self, record: Record, selected: Collection[str]) -> list[str]:
        name = [] if METHOD in selected else [printable(record.method)]
        return [*name, *self._settings(record, selected), *self._origin(record, selected)]

    def _settings(self, record: Record, selected: Collection[str]) -> list[str]:
        keys = self.varying[record.method]
        last = Counter(key.rpartition(".")[2] for key in keys)
        told = [key for key in keys if key in record.settings and key not in selected and key != MODEL]
        # Their last words alone would be taken for other settings.
        whole = {key for key in told if key.endswith(".model") or _is_source(key)}
        short = {key: end if last[end := key.rpartition(".")[2]] == 1 and key not in whole else key for key in told}
        return [f"{printable(short[key])}={shown(record.settings[key])}" for key in told]

    def _origin(self, record: Record, selected: Collection[str]) -> list[str]:
        """Model, code and the files that were learned from, where they vary."""
        name = _name(record) if MODEL in self.varying[record.method] else ""
        model = "" if MODEL in selected else "@".join(filter(None, (name, self._checkpoint(record))))
        version = self._version(record)
        told = (("model", model), ("version", version), ("learned_from", self._learned(record)))
        return [f"{key}={value}" for key, value in told if value]

    def _model(self, record: Record) -> str:
        return "@".join(filter(None, (_name(record), self._checkpoint(record)))) or UNKNOWN

    def _checkpoint(self, record: Record) -> str:
        return printable(record.model) if len(self._checkpoints[_text(record, MODEL)]) > 1 else ""

    def _learned(self, record: Record) -> str:
        return printable(record.learned) if len(self._files[_learned_from(record)] - {""}) > 1 else ""

    def _version(self, record: Record) -> str:
        """Of the stages whose version varies: `3`, or `scan2+run3` where they are not the same."""
        own = {stage: version for stage in self._versions if (version := record.version(stage)) is not None}
        if not record.code:
            return UNKNOWN if self._versions else ""
        if len(set(own.values())) == 1:
            return str(next(iter(own.values())))
        return "+".join(f"{printable(stage)}{version}" for stage, version in own.items())

    @cached_property
    def _checkpoints(self) -> dict[str, set[str]]:
        found = defaultdict(set)
        for record in self.records:
            found[_text(record, MODEL)].add(record.model)
        return found

    @cached_property
    def _files(self) -> dict[str, set[str]]:
        found = defaultdict(set)
        for record in self.records:
            found[_learned_from(record)].add(record.learned)
        return found

    @cached_property
    def _versions(self) -> list[str]:
        """Stages whose version varies; where it is unknown to some runs, those that others know."""
        stages = sorted({stage for record in self.records for stage in record.code})
        known = all(record.code for record in self.records)
        values = {stage: {r.version(stage) for r in self.records} - {None} for stage in stages}
        return [stage for stage in stages if not known or len(values[stage]) > 1]

    def _distinct(self, of: Callable[[Record], str]) -> list[str]:
        return sorted({value for record in self.records if (value := of(record))})

    def _is_shared(self, key: str) -> bool:
        return key.startswith("model.") or is_fit(key) or key in self.shared

    @staticmethod
    def _vary(records: Sequence[Record], of: Callable[[str], bool]) -> list[str]:
        names = [key for key in dict.fromkeys(key for record in records for key in record.settings) if of(key)]
        return [key for key in names if len({_text(record, key) for record in records}) > 1]


def _name(record: Record) -> str:
    return printable(str(record.settings.get(MODEL, "")))


def _is_own(key: str) -> bool:
    return not key.startswith(("dataset.", "model.")) and key != METHOD


def _is_source(key: str) -> bool:
    """Whether a setting says what a method has learned from, where that is not what it is asked about."""
    return key.startswith("fit.")


def _learned_from(record: Record) -> str:
    """The settings that say which files a run has learned from, and the files that it was asked about."""
    names = {key: value for key, value in record.settings.items() if key.startswith(("fit.", "dataset."))}
    return json.dumps([names, record.data], sort_keys=True, default=str)


def _learns(record: Record) -> bool:
    """Whether a run has looked at the support; else it has no source, whatever others have."""
    return bool(record.settings.get("method.shots")) or any(k.startswith(("scan.", "train.")) for k in record.settings)


def _text(record: Record, key: str) -> str:
    """A value to compare, in which nothing is not the value null."""
    return json.dumps(record.settings[key]) if key in record.settings else ""


def _needed(keys: Sequence[str], records: Sequence[Record]) -> list[str]:
    """Without settings of one value that other settings decide are read: how demonstrations are chosen, without any."""
    kept = list(keys)
    for key in keys:
        others = [other for other in kept if other != key]
        found = {(tuple(_text(r, other) for other in others), _text(r, key)) for r in records}
        values = {value for _, value in found}
        if "" in values and len(values) == 2 and len({place for place, _ in found}) == len(found):
            kept.remove(key)
    return kept


def _told(key: str, values: Iterable[str]) -> str:
    return listed([f"{key}={value}" for value in values])


def _own_values(key: str, values: dict[str, Any]) -> str:
    told = [f"{shown(value)} for {printable(name)}" for name, value in values.items() if value is not None]
    return f"Benchmarks come with a {brief(key)} of their own: {listed(told)}."
