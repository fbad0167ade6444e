"""Trackers are views of a run: each is written, jobs stay apart, and none is needed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stv_exp import tracking
from stv_exp.config import TemplateConfig, TrackerConfig
from stv_exp.data.loading import load_task
from stv_exp.errors import StvError
from stv_exp.identity import signatures
from stv_exp.pipeline import run
from stv_exp.stages.evaluate import Prediction
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


def test_a_tracker_sees_a_run_when_its_results_are_on_disk(config, tmp_path, monkeypatch):
    def finish(self, outcome):
        status = json.loads((outcome.folder / "status.json").read_text())
        assert status["state"] == "done" and "metrics.json" in status["files"]
        raise AssertionError("seen")

    monkeypatch.setattr(tracking.Tracker, "finish", finish)
    with pytest.raises(AssertionError, match="seen"):
        run(replace(config, tracker=TrackerConfig(name="csv")), [])


@pytest.mark.parametrize("name", ["wandb", "csv", "tensorboard"])
def test_a_tracker_whose_folder_cannot_be_written_costs_one_warning(config, tmp_path, name, caplog):
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    (outputs / name).write_text("a file stands where the tracker's folder should be")
    metrics = run(replace(config, tracker=TrackerConfig(name=name)), [])
    assert metrics["n"] == 12
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and r.name.startswith("stv_exp")]
    assert len(warnings) <= 1 and all(f"tracker={name} has failed (" in warning for warning in warnings)
    (folder,) = (p.parent for p in tmp_path.rglob("metrics.json"))
    assert json.loads((folder / "status.json").read_text())["state"] == "done"


def test_a_tracker_that_fails_in_the_middle_costs_one_warning(config, tmp_path, monkeypatch, caplog):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning.pytorch.loggers.CSVLogger.log_metrics", full)
    metrics = run(replace(config, tracker=TrackerConfig(name="csv")), [])
    assert metrics["n"] == 12
    warnings = [r.getMessage() for r in caplog.records if "has failed" in r.getMessage()]
    assert warnings == [
        "tracker=csv has failed (OSError: [Errno 28] No space left on device); "
        "the run goes on without it and keeps its results."
    ]


def test_wandb_shows_queries_with_and_without_a_picture_in_one_table(config, tmp_path, monkeypatch):
    task = load_task(config)
    mixed = tuple(replace(e, images=e.images if i % 2 else ()) for i, e in enumerate(task.evaluation))
    shown = [Prediction(e.id, e.question, list(e.answers), "x", 0.0, []) for e in mixed]
    tracker = tracking.WandbTracker.__new__(tracking.WandbTracker)
    tracker.config = config
    table = tracker._table(tracking.Outcome(tmp_path, {}, replace(task, evaluation=mixed), shown, None))
    assert {len(row) for row in table.data} == {6}
    assert [row[-1] is None for row in table.data] == [not e.images for e in mixed]


def test_wandb_online_without_a_login_is_refused_before_any_work(config, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StvError, match=r"tracker\.mode=online needs a login; run `wandb login`, set WANDB_API_KEY"):
        run(replace(config, tracker=TrackerConfig(mode="online")), [])
    assert not list(tmp_path.rglob("status.json"))
