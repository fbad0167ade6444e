"""Trackers are views of a run: each is written, jobs stay apart, and none is needed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stv_exp.config import TemplateConfig, TrackerConfig
from stv_exp.identity import signatures
from stv_exp.pipeline import run
from tests.conftest import with_method


def test_wandb_keeps_one_offline_run_a_job_with_its_summary(config, tmp_path):
    config = replace(config, tracker=TrackerConfig(name="wandb", images=3))
    for k in (3, 4):
        run(with_method(config, k=k), [])
    folders = sorted((tmp_path / "outputs/wandb").glob("offline-run-*"))
    assert len(folders) == 2
    for folder, k in zip(folders, (3, 4), strict=True):
        (file,) = folder.glob("*.wandb")
        assert signatures(with_method(config, k=k)).run in file.name
        seen = subprocess.run(
            [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", str(folder)], capture_output=True, text=True
        )
        assert seen.returncode == 0, seen.stderr
        assert "accuracy" in seen.stdout and "reward" in seen.stdout


def test_wandb_tracks_a_dataset_without_pictures(config, tmp_path):
    template = TemplateConfig("", "Q: {question}\nA: {answer}\n", "Q: {question}\nA:", " {answer}")
    words = replace(config.dataset, name="words", loader="stv_exp.data.words", task="antonym", template=template)
    run(replace(config, dataset=words, tracker=TrackerConfig(name="wandb", images=3)), [])
    assert list((tmp_path / "outputs/wandb").glob("offline-run-*"))


def test_csv_has_the_reward_curve(config, tmp_path):
    config = replace(config, tracker=TrackerConfig(name="csv"))
    run(config, [])
    with (tmp_path / "outputs/csv" / signatures(config).run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(bool(row.get("reward")) for row in rows) == config.policy.steps
    assert any(row.get("accuracy") for row in rows)


def test_a_search_found_in_the_store_has_its_curve_replayed(config, tmp_path):
    run(config, [])
    again = replace(config, tracker=TrackerConfig(name="csv"), dataset=replace(config.dataset, eval=5))
    run(again, [])
    path = tmp_path / "outputs/csv" / signatures(again).run / "metrics.csv"
    assert path.read_text().count("\n") > config.policy.steps


def test_tensorboard_writes_events(config, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    config = replace(config, tracker=TrackerConfig(name="tensorboard"))
    run(config, [])
    assert list((tmp_path / "outputs/tensorboard" / signatures(config).run).glob("events.*"))


@pytest.mark.parametrize("name", ["none", "wandb"])
def test_the_result_does_not_depend_on_the_tracker(config, tmp_path, name):
    config = replace(config, tracker=TrackerConfig(name=name), outputs=str(tmp_path / name))
    metrics = run(config, [])
    folder = Path(config.outputs, "runs", signatures(config).run)
    assert json.loads((folder / "metrics.json").read_text())["accuracy"] == metrics["accuracy"]
    reference = run(replace(config, tracker=TrackerConfig(name="none"), outputs=str(tmp_path / "reference")), [])
    assert metrics["accuracy"] == reference["accuracy"]
