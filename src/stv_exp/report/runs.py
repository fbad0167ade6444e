"""Reads run folders into one table row a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from stv_exp.disk.files import read_json
from stv_exp.errors import StvError
from stv_exp.metrics import METRICS
from stv_exp.report import selection

# Settings that tell tasks apart, not variants of a method.
_NOT_VARIANT = ("dataset.name", "dataset.task", "dataset.loader")


def load_runs(outputs: Path, study: str | None = None, select: Sequence[str] = ()) -> pd.DataFrame:
    """One row for each run that is done; raises `StvError` where there is none.

    Columns: signature, folder, label (method and what varies), task, seed, accuracy, validation_accuracy (NaN without),
    n, seconds, location_search_seconds, candidate_evaluations, search_token_forwards (scan included). With `select`
    only the rows and with the columns of `selection.best_on_validation`, the selected keys being no part of the label.
    """
    records = [r for r in (_record(folder) for folder in _folders(outputs, study)) if r is not None]
    if not records:
        where = f"the study {study} of {outputs}" if study else str(outputs)
        raise StvError(f"There is no finished run in {where}; run `python -m stv_exp +experiment=quickstart` first.")
    runs = pd.DataFrame([r["row"] for r in records]).astype({"validation_accuracy": float})
    methods, settings = runs["method"].tolist(), [r["settings"] for r in records]
    varying = _varying(methods, settings)
    selection.check_keys(select, {name for own in varying.values() for name in own})
    runs["label"] = _labels(methods, settings, {m: [n for n in own if n not in select] for m, own in varying.items()})
    return selection.best_on_validation(runs, settings, select) if select else runs


def load_scores(runs: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """One row for each eval item of each run: folder, label, task, seed, id and its score in 0-1.

    With `metric` the predictions are scored anew. Raises `StvError` where a run has no readable `predictions.jsonl`, or
    answers that the metric cannot score.
    """
    if metric is not None and metric not in METRICS:
        raise StvError(f"--metric {metric} is unknown; choose one of {', '.join(METRICS)}.")
    same = ["folder", "label", "task", "seed"]
    scores = [_scores(Path(run["folder"]), metric).assign(**run[same]) for _, run in runs.iterrows()]
    return pd.concat(scores, ignore_index=True)


def rescored(runs: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """The runs with their accuracy by `scores`."""
    return runs.assign(accuracy=runs["folder"].map(scores.groupby("folder")["score"].mean()))


def _scores(folder: Path, metric: str | None) -> pd.DataFrame:
    path = folder / "predictions.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        scores = [_score(line, metric, folder) if metric else line["correct"] for line in lines]
        return pd.DataFrame({"id": [line["id"] for line in lines], "score": scores})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StvError(f"{path} cannot be read ({error}); delete the run's folder and run it again.") from error


def _score(line: dict[str, Any], metric: str, folder: Path) -> float:
    try:
        return METRICS[metric](line["prediction"], line["answers"])
    except StvError as error:
        raise StvError(f"Query {line['id']} of the run {folder.name} cannot be scored: {error}") from error


def unfinished(outputs: Path, study: str | None = None) -> list[str]:
    """A sentence for each run that has failed or not ended."""
    found = []
    for folder in _folders(outputs, study):
        status = read_json(folder / "status.json") or {}
        if status.get("state") in ("failed", "running"):
            found.append(f"{folder.name} is {status['state']}: {status.get('error', 'no end was recorded')}")
    return found


def _folders(outputs: Path, study: str | None) -> Iterator[Path]:
    if study is None:
        yield from sorted(p for p in (outputs / "runs").glob("*") if p.is_dir())
        return
    for entry in sorted((outputs / "sweeps" / study).glob("*.run")):
        yield outputs / "runs" / entry.stem


def _record(folder: Path) -> dict[str, Any] | None:
    metrics, status = read_json(folder / "metrics.json"), read_json(folder / "status.json")
    if metrics is None or status is None or status["state"] != "done":
        return None
    manifest = read_json(folder / "manifest.json") or {}
    used = _flat(manifest["settings"])
    row = {
        "signature": folder.name,
        "folder": str(folder),
        "method": used["method.name"],
        "task": f"{used['dataset.name']}/{used['dataset.task']}",
        "seed": manifest["seed"],
        "accuracy": metrics["accuracy"],
        "validation_accuracy": metrics.get("validation_accuracy"),
        "n": metrics["n"],
        "seconds": metrics["seconds"]["total"],
        "location_search_seconds": metrics["location_search_seconds"],
        "candidate_evaluations": metrics["candidate_evaluations"],
        "search_token_forwards": _search_tokens(metrics.get("token_forwards")),
    }
    return {"row": row, "settings": used}


def _search_tokens(by_stage: dict[str, float] | None) -> float:
    """Token-forwards of all stages before the evaluation; NaN for runs of 0.2, which did not count them."""
    return float("nan") if by_stage is None else sum(n for stage, n in by_stage.items() if stage != "evaluation")


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _varying(methods: list[str], settings: list[dict[str, Any]]) -> dict[str, list[str]]:
    """By method, the names of the settings that vary among its runs."""
    varying: dict[str, list[str]] = {}
    for method in set(methods):
        own = [s for m, s in zip(methods, settings, strict=True) if m == method]
        names = [name for name in dict.fromkeys(chain.from_iterable(own)) if name not in _NOT_VARIANT]
        varying[method] = [name for name in names if len({str(s.get(name)) for s in own}) > 1]
    return varying


def _labels(methods: list[str], settings: list[dict[str, Any]], varying: dict[str, list[str]]) -> list[str]:
    """The method's name, and every setting that varies among its runs: `stv k=16`."""
    return [
        " ".join([m, *(f"{name.rpartition('.')[2]}={s.get(name)}" for name in varying[m])])
        for m, s in zip(methods, settings, strict=True)
    ]
