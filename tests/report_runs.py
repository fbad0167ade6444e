"""Run folders made by hand, as runs of 0.2 left them and as they are written now."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from stv_exp.disk.files import checksum, write_json
from stv_exp.metrics import exact_match


def write_run(
    outputs: Path,
    name: str,
    said: list[str],
    answers: list[str],
    *,
    seed: int = 0,
    validation: float | None = None,
    origin: dict[str, Any] | None = None,
    checked: bool = False,
    question: str = "?",
    metrics: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A finished run's folder, made by hand: what it said to one query a text; `changes` are parts of its settings.

    With `origin` its manifest says what it was made by, with `checked` its files have checksums, as they have now.
    `metrics` are numbers beside its accuracy.
    """
    folder = outputs / "runs" / name
    folder.mkdir(parents=True)
    used = {"dataset": {"name": "toy", "task": "a"}, "method": {"name": "stv"}}
    used |= {stage: used.get(stage, {}) | own for stage, own in changes.items()}
    lines = [
        {"id": f"q{i}", "question": question, "answers": answers, "prediction": text} for i, text in enumerate(said)
    ]
    scored = [line | {"correct": exact_match(line["prediction"], answers)} for line in lines]
    numbers = {"accuracy": fmean(line["correct"] for line in scored), "n": len(said), "seconds": {"total": 1.0}}
    costs = {"location_search_seconds": 0.5, "candidate_evaluations": 8}
    validated = {} if validation is None else {"validation_accuracy": validation}
    write_json(folder / "metrics.json", numbers | costs | validated | (metrics or {}))
    write_json(
        folder / "manifest.json",
        {"settings": used, "seed": seed, "inputs": {}} | ({"origin": origin} if origin else {}),
    )
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in scored))
    files = {"files": {path.name: checksum(path) for path in folder.iterdir()}} if checked else {}
    write_json(folder / "status.json", {"state": "done"} | files)
    return folder
