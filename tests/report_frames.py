"""The frames of a report, read from run folders: a row a run, and a row an item."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import yaml

from stv_exp.disk.files import read_json
from stv_exp.report.damage import flat
from stv_exp.report.runs import load


def frames(outputs: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs and predictions of an outputs folder."""
    rows = load(outputs).runs
    runs = pd.DataFrame([_run(row) for _, row in rows.iterrows()])
    predictions = pd.concat([_items(row) for _, row in rows.iterrows()], ignore_index=True)
    return runs, predictions


def _run(row: pd.Series) -> dict[str, object]:
    folder = Path(row["folder"])
    settings = flat((read_json(folder / "manifest.json") or {})["settings"], "manifest.json")
    numbers = flat(read_json(folder / "metrics.json") or {}, "metrics.json")
    overrides = folder / "overrides.yaml"
    named = row[["folder", "method", "task", "label", "seed", "bank", "search_token_forwards"]].to_dict()
    command = yaml.safe_load(overrides.read_text()) if overrides.exists() else []
    return {"run": row["signature"], **named, **settings, **numbers, "overrides": command}


def _items(row: pd.Series) -> pd.DataFrame:
    lines = (Path(row["folder"]) / "predictions.jsonl").read_text().splitlines()
    return pd.DataFrame([json.loads(line) for line in lines]).assign(
        run=row["signature"], label=row["label"], task=row["task"], seed=row["seed"]
    )
