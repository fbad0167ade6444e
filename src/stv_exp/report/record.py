"""One finished run: its folder, read and checked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from stv_exp.disk.files import damaged
from stv_exp.errors import StvError
from stv_exp.metrics import METRICS
from stv_exp.report.damage import (
    DamagedError,
    file_text,
    flat,
    is_name,
    is_number,
    is_setting,
    is_share,
    is_text,
    is_texts,
    is_whole,
    json_object,
    optional,
    require,
)
from stv_exp.report.text import brief

UNKNOWN = "unknown"  # of runs of 0.2, which did not record it
_LINE = {"id": is_name, "question": is_text, "answers": is_texts, "prediction": is_text, "correct": is_share}
_BEHIND = "demonstration_ids"
_MANIFEST = {"seed": is_whole, "signature": optional(is_name), "inputs.bank": optional(is_name)}
_ORIGIN = {
    "origin.model": optional(is_name),
    "origin.data": optional(is_text),
    "origin.learned_from": optional(is_text),
}
_NAMES = {"method.name": is_name, "dataset.name": is_name, "dataset.task": is_name}
_CHOICES = ("where", "what", "how", "edit")
_METRICS = {
    "accuracy": is_share,
    "validation_accuracy": optional(is_share),
    "n": is_whole,
    "seconds.total": is_number,
    "location_search_seconds": optional(is_number),
    "candidate_evaluations": is_number,
}
_BY_STAGE = ("seconds", "forwards", "token_forwards", "peak_memory_by_stage")


@dataclass(frozen=True)
class Record:
    """A run as it was recorded: `settings` and the `numbers` of its metrics by dotted key, NaN for null.

    `items` has a row a query: id, question, answers, prediction, correct (its score in 0-1), demonstration_ids. `code`
    has the version of each stage that the run needed (empty: unknown). `asked` is a digest of the questions and their
    right answers: the same ids may be of other data. `data` is a digest of the files behind the task, `learned` of
    those that a method has learned from where they are others. `overrides` are its command's.
    `unscored` says why the metric that was asked for cannot score its answers (empty: it can).
    """

    folder: Path
    settings: Mapping[str, Any]
    seed: int
    code: Mapping[str, int]
    model: str
    data: str
    learned: str
    bank: str | None
    numbers: Mapping[str, float]
    items: pd.DataFrame
    unscored: str
    asked: str
    overrides: Sequence[str]

    def version(self, stage: str) -> int | None:
        """Of a stage or of a choice, whose first is not recorded; None where the run has not needed it."""
        first = 1 if self.code and stage in _choices(self.settings).values() else None
        return self.code.get(stage, first)

    @property
    def method(self) -> str:
        return str(self.settings["method.name"])


def read(folder: Path, status: Mapping[str, Any], metric: str | None = None) -> Record | None:
    """The run in `folder`, which is done, its predictions scored anew with `metric`; None for a job without a method.

    Raises `DamagedError`.
    """
    _check_checksums(folder, status)
    manifest = _values(folder / "manifest.json")
    settings = _below("settings", manifest)
    if settings and all(key.startswith("pretrain.") for key in settings):
        return None
    _check_manifest(folder, manifest, settings)
    metrics = _metrics(folder / "metrics.json")
    lines = _lines(folder, int(metrics["n"]))
    scores, unscored = _scores(lines, metric, folder)
    return Record(
        folder=folder,
        settings=settings,
        seed=manifest["seed"],
        code=_code(manifest, settings, metrics),
        model=manifest.get("origin.model") or UNKNOWN,
        data=UNKNOWN if manifest.get("origin.data") is None else manifest["origin.data"],
        learned=manifest.get("origin.learned_from") or "",
        bank=manifest.get("inputs.bank"),
        numbers={k: float("nan") if v is None else v for k, v in metrics.items() if v is None or is_number(v)},
        items=_items(lines, scores),
        unscored=unscored,
        asked=_digest([[line["id"], line["question"], line["answers"]] for line in lines]),
        overrides=_overrides(folder / "overrides.yaml"),
    )


def _check_checksums(folder: Path, status: Mapping[str, Any]) -> None:
    """Runs of 0.2 have none, so that their keys have to do."""
    if "files" not in status:
        return
    if found := damaged(folder, dict(status)):
        raise DamagedError(brief(found))


def _check_manifest(folder: Path, manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    require("manifest.json", settings, _NAMES | dict.fromkeys(settings, is_setting) | _NAMES)
    versions = dict.fromkeys((key for key in manifest if key.startswith("origin.code.")), is_whole)
    nothing = dict.fromkeys(("origin", "origin.code", "settings", "inputs"), lambda value: value is None)
    require("manifest.json", manifest, _MANIFEST | _ORIGIN | versions | nothing)
    if manifest.get("signature") not in (None, folder.name):
        raise DamagedError(f"manifest.json is that of the run {brief(manifest['signature'], 60)}")


def _values(path: Path) -> dict[str, Any]:
    return flat(json_object(file_text(path), path.name), path.name)


def _below(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(f"{section}."): v for key, v in values.items() if key.startswith(f"{section}.")}


def _code(manifest: Mapping[str, Any], settings: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, int]:
    """Versions of the stages that the run took time for; what only prompts has been through no search.

    And those of its choices, of wrong labels and a chat's ends, where there are some: the first did not count itself.
    """
    versions = _below("origin.code", manifest)
    noise = settings.get("dataset.label_noise", 0)
    seconds = _below("seconds", metrics)
    taught = settings.get("model.chat") is True and {"policy", "train"} & {*seconds}
    has = {"labels": is_number(noise) and noise > 0, "ends": taught}
    first = {name: 1 for name, there in has.items() if versions and there}
    used = {"run", *first, *seconds}
    first |= {name: versions[kind] for kind, name in _choices(settings).items() if kind in versions}
    return first | {stage: version for stage, version in versions.items() if stage in used}


def _choices(settings: Mapping[str, Any]) -> dict[str, str]:
    """The choices of a method by kind."""
    return {kind: str(settings[key]) for kind in _CHOICES if (key := f"method.{kind}") in settings}


def _metrics(path: Path) -> dict[str, Any]:
    """The metrics by dotted key; what is counted by stage is a number for each."""
    metrics = _values(path)
    counted = [key for key in metrics if key.partition(".")[0] in _BY_STAGE and "." in key]
    require(path.name, metrics, _METRICS | dict.fromkeys(counted, is_number))
    require(path.name, metrics, {"token_forwards": lambda value: value is None})
    return metrics


def _overrides(path: Path) -> list[str]:
    """Runs may have been made without a command line."""
    if not os.path.lexists(path):
        return []
    try:
        words = yaml.safe_load(file_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path.name} is no YAML") from error
    if not is_texts(words):
        raise DamagedError(f"{path.name} is no list of texts")
    return words


def _lines(folder: Path, n: int) -> list[dict[str, Any]]:
    texts = [line for line in file_text(folder / "predictions.jsonl").split("\n") if line]
    lines = []
    for i, text in enumerate(texts, 1):
        where = f"predictions.jsonl, line {i},"
        lines.append(json_object(text, where))
        require(where, lines[-1], _LINE | {_BEHIND: optional(is_texts)})
    if len(lines) != n or n == 0:
        raise DamagedError(f"predictions.jsonl has {len(lines)} lines, metrics.json counts {n}")
    if len({line["id"] for line in lines}) < n:
        raise DamagedError("predictions.jsonl has an id twice")
    return lines


def _items(lines: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> pd.DataFrame:
    columns: dict[str, list[Any]] = {key: [line[key] for line in lines] for key in _LINE}
    columns[_BEHIND] = [line.get(_BEHIND) or [] for line in lines]
    return pd.DataFrame(columns, dtype=object).assign(correct=list(scores))


def _scores(lines: Sequence[Mapping[str, Any]], metric: str | None, folder: Path) -> tuple[list[float], str]:
    """As they were recorded, or anew; and why the metric cannot score them, which is no matter where nobody asks."""
    recorded = [float(line["correct"]) for line in lines]
    if metric is None:
        return recorded, ""
    scores = list[float]()
    for line in lines:
        try:
            scores.append(METRICS[metric](line["prediction"], line["answers"]))
        except StvError as error:
            query, run = brief(line["id"]), brief(folder.name)
            return recorded, f"Query {query} of the run {run} cannot be scored: {brief(error)}"
    return scores, ""


def _digest(questions: list[list[Any]]) -> str:
    return hashlib.sha256(json.dumps(sorted(questions)).encode()).hexdigest()[:8]
