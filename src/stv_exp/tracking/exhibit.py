"""What a run shows, read from its folder: no model, no dataset, no torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from stv_exp.report.damage import DamagedError, file_text, flat, json_object
from stv_exp.report.ranking import Ranking, ranking, vector_locations

Curve = list[dict[str, float]]
_TOLD = ("signature", "seed", "inputs", "git", "versions", "origin")  # of the manifest, beside the settings
_MODEL = ("layers", "heads", "device")  # of the metrics: what the run has met, beside its settings


@dataclass(frozen=True)
class Exhibit:
    """A run's own files, as they are; `study` is what it is compared within. A run that goes on has no `metrics`."""

    folder: Path
    study: str
    manifest: Mapping[str, Any]
    overrides: list[str]
    metrics: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, study: str | None = None) -> Exhibit:
        """The run in `folder`, of the study that it was started in unless another is named.

        Raises `DamagedError` where a file is not what a run writes.
        """
        manifest = json_object(file_text(folder / "manifest.json"), "manifest.json")
        if not all(isinstance(manifest.get(key, {}), dict) for key in ("settings", "inputs")):
            raise DamagedError("manifest.json holds no settings")
        found = folder / "metrics.json"
        metrics = json_object(file_text(found), found.name) if found.is_file() else {}
        saved = _yaml(folder / "config.yaml")
        started_in = saved.get("study") if isinstance(saved, dict) else None
        overrides = _yaml(folder / "overrides.yaml")
        words = [str(word) for word in overrides] if isinstance(overrides, list) else []
        return cls(folder, study or str(started_in or "runs"), manifest, words, metrics)

    @property
    def signature(self) -> str:
        return self.folder.name

    @property
    def stages(self) -> Path:
        """The folder of the artefacts that this run and others share."""
        return self.folder.parents[1] / "stages"

    @property
    def inputs(self) -> dict[str, str]:
        """Signatures of the stages that the run is made of, by stage."""
        return dict(self.manifest.get("inputs", {}))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the run's result depends on, nested as in its config."""
        return dict(self.manifest.get("settings", {}))

    @cached_property
    def values(self) -> dict[str, Any]:
        """The same settings by their dotted keys."""
        return flat(self.settings, "manifest.json")

    @property
    def config(self) -> dict[str, Any]:
        """What the run was made with: its settings, and what it has met."""
        told = {key: self.manifest[key] for key in _TOLD if key in self.manifest}
        met = {key: self.metrics[key] for key in _MODEL if key in self.metrics}
        cost = {"token_forwards": self.cost["token_forwards"]} if self.metrics else {}
        return self.settings | told | {"study": self.study} | met | cost

    @property
    def cost(self) -> dict[str, float]:
        """Totals over the stages: seconds, forwards, token-forwards."""
        return {name: _total(self.metrics.get(name)) for name in ("seconds", "forwards", "token_forwards")}

    @property
    def summary(self) -> dict[str, Any]:
        """The metrics, the totals and the locations that are written to, as `layer.head` in order."""
        return {**self.metrics, "cost": self.cost, "chosen": [".".join(map(str, place)) for place in self.chosen]}

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers of the summary by their dotted keys."""
        known = flat({**self.metrics, "cost": self.cost}, "metrics.json")
        return {key: float(value) for key, value in known.items() if isinstance(value, int | float)}

    @cached_property
    def chosen(self) -> list[tuple[int, ...]]:
        """The locations of the task vector; none where the method is prompting alone."""
        return vector_locations(self.folder / "task_vector.safetensors")

    @property
    def ranking(self) -> Ranking | None:
        """What the locations were ranked by; None where that was nothing, or the bank is not here any more."""
        bank = self.inputs.get("bank")
        try:
            return ranking(self.stages / f"bank-{bank}") if bank else None
        except DamagedError:  # stages may be cleared away
            return None

    @property
    def curve(self) -> Curve:
        """The values of each step of the search; none where there was no search."""
        path = self.folder / "history.csv"
        if not path.is_file():
            return []
        try:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(io.StringIO(file_text(path)))]
        except (TypeError, ValueError) as error:
            raise DamagedError("history.csv is no table of numbers") from error

    @property
    def predictions(self) -> list[dict[str, Any]]:
        """The lines of `predictions.jsonl`, the worst first."""
        path = self.folder / "predictions.jsonl"
        lines = [line for line in file_text(path).split("\n") if line]
        return sorted((json_object(line, path.name) for line in lines), key=lambda line: float(line["correct"]))


def _total(by_stage: object) -> float:
    if not isinstance(by_stage, dict):
        return 0.0
    return float(by_stage["total"] if "total" in by_stage else sum(by_stage.values()))


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(file_text(path))
    except (DamagedError, yaml.YAMLError):  # runs of 0.2 may lack it, and nothing hangs on it
        return None
