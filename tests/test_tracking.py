"""Trackers are views of a run: each is written, jobs stay apart, and none is needed."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from stv_exp.cli import configure
from stv_exp.config import TemplateConfig
from stv_exp.data.loader import load_task
from stv_exp.disk.files import damaged
from stv_exp.errors import StvError
from stv_exp.identity import signatures
from stv_exp.pipeline import run
from stv_exp.stages.search import CandidateSearch
from stv_exp.tracker_config import TrackerConfig
from stv_exp.tracking.pictures import of_task
from stv_exp.tracking.tracker import Tracker
from tests import forked
from tests.conftest import with_method
from tests.wandb_runs import OfflineRun, offline_runs


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Where the smoke job has been run, tracked by W&B offline."""
    folder = tmp_path_factory.mktemp("tracked")
    done = forked.run(folder, "+experiment=smoke", "tracker.images=3", "tracker.tags=[mine]", "seed=1")
    assert done.returncode == 0, done.text
    return folder


@pytest.fixture(scope="module")
def seen(place) -> OfflineRun:
    """What W&B has kept of it."""
    (found,) = offline_runs(place / "outputs")
    return found


def test_a_run_in_wandb_is_told_by_its_name_its_tags_and_its_command(seen):
    known = {key: seen.run[key] for key in ("display_name", "job_type", "run_group", "tags")}
    assert known == {
        "display_name": "stv_identity k=4 m=2 position-shared-0 s1",
        "job_type": "stv_identity",
        "run_group": "smoke",
        "tags": ["tiny", "shapes", "stv_identity", "smoke", "mine"],
    }
    assert seen.run["notes"] == ("python -m stv_exp +experiment=smoke tracker.images=3 'tracker.tags=[mine]' seed=1")


def test_wandb_has_the_settings_that_the_job_reads_and_what_it_met(seen, place):
    (folder,) = (path.parent for path in place.glob("outputs/runs/*/metrics.json"))
    manifest = json.loads((folder / "manifest.json").read_text())
    for section, values in manifest["settings"].items():
        assert seen.config[section] == values
    assert not {"trainer", "tracker", "outputs", "pretrain", "job"} & seen.config.keys()
    assert "selection_draws" not in seen.config["policy"] or "selection_draws" in manifest["settings"]["policy"]
    assert (seen.config["layers"], seen.config["heads"], seen.config["device"]) == (2, 8, "cpu")
    assert seen.config["inputs"] == manifest["inputs"] and seen.config["versions"] == manifest["versions"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert seen.config["token_forwards"] == sum(metrics["token_forwards"].values())


def test_wandb_has_curves_by_their_own_step_and_totals_of_the_cost(seen, place):
    defined = {m["name"]: m.get("step_metric") for m in seen.of("metric")}
    assert defined["reward"] == defined["reward_random"] == "step"
    steps = [h["item"]["step"] for h in seen.of("history") if "reward" in h["item"]]
    assert steps == [0, 1, 2, 3]
    (folder,) = (path.parent for path in place.glob("outputs/runs/*/metrics.json"))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert seen.summary["accuracy"] == metrics["accuracy"] and "max" in seen.summary["reward"]
    assert seen.summary["cost"]["seconds"] == metrics["seconds"]["total"]
    assert seen.summary["cost"]["token_forwards"] == sum(metrics["token_forwards"].values())
    assert seen.summary["token_forwards"] == metrics["token_forwards"]


def test_wandb_has_every_prediction_the_wrong_ones_first(seen, place):
    (folder,) = (path.parent for path in place.glob("outputs/runs/*/metrics.json"))
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    table = seen.table("predictions")
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert sorted(row["id"] for row in rows) == sorted(line["id"] for line in lines)
    assert [row["score"] for row in rows] == sorted(line["correct"] for line in lines)
    assert [row["picture"] is not None for row in rows] == [True] * 3 + [False] * 5


def test_wandb_has_the_sensitivity_as_a_picture_and_as_a_table_with_the_chosen_heads(seen):
    assert list((seen.folder / "files/media/images").glob("location_scores_*.png"))
    table = seen.table("ranking")
    assert table["columns"] == ["layer", "head", "score", "chosen"]
    assert len(table["data"]) == 2 * 8
    assert [row[2] for row in table["data"]] == sorted((row[2] for row in table["data"]), reverse=True)
    assert sorted(f"{row[0]}.{row[1]}" for row in table["data"] if row[3]) == sorted(seen.summary["chosen"])


def test_wandb_has_scan_bank_and_vector_each_with_what_it_came_from(seen):
    known = {kind: json.loads(a["metadata"]) for kind, a in seen.artifacts.items() if kind != "tables"}
    names = {kind: a["name"] for kind, a in seen.artifacts.items()}
    assert known["task_vector"]["from"] == names["bank"] and known["bank"]["from"] == names["scan"]
    assert known["task_vector"].items() >= {"method.k": 4, "method.m": 2, "model.name": "tiny", "n": 8}.items()
    assert 0 <= known["task_vector"]["accuracy"] <= 1
    inputs = seen.config["inputs"]
    assert [names["scan"], names["bank"]] == [f"scan-{inputs['scan']}", f"bank-{inputs['bank']}"]


def test_all_files_of_an_offline_run_lie_below_outputs_by_relative_paths(seen, place):
    assert seen.staged
    for path in seen.staged:
        assert path.startswith("outputs/") and (place / path).is_file()


def test_a_tracked_run_keeps_its_checksums(place):
    (folder,) = (path.parent for path in place.glob("outputs/runs/*/metrics.json"))
    status = json.loads((folder / "status.json").read_text())
    assert (folder / ".sent.json").is_file() and damaged(folder, status) is None


def test_jobs_of_one_process_are_runs_of_their_own(config, tmp_path):
    prompting = with_method(config, name="zero_shot", where="none", what="none", how="none")
    for seed in (0, 1):
        run(replace(prompting, tracker=TrackerConfig(name="wandb", images=3), seed=seed), [])
    names = [seen.run["display_name"] for seen in offline_runs(tmp_path / "outputs")]
    assert names == ["zero_shot position-shared-0 s0", "zero_shot position-shared-0 s1"]


def test_wandb_tracks_a_dataset_without_pictures(config, tmp_path):
    template = TemplateConfig("", "Q: {question}\nA: {answer}\n", "Q: {question}\nA:", " {answer}")
    words = replace(config.dataset, name="words", loader="stv_exp.data.words", task="antonym", template=template)
    run(replace(config, dataset=words, tracker=TrackerConfig(name="wandb", images=3)), [])
    assert list((tmp_path / "outputs/wandb").glob("offline-run-*"))


def test_csv_has_settings_curve_and_at_the_last_step_the_final_numbers(config, tmp_path):
    config = replace(config, tracker=TrackerConfig(name="csv"))
    metrics = run(config, [])
    folder = tmp_path / "outputs/csv" / signatures(config).run
    rows = curve(folder)
    assert [int(row["step"]) for row in rows if row.get("reward")] == list(range(config.policy.steps))
    assert int(rows[-1]["step"]) == config.policy.steps - 1
    assert float(rows[-1]["accuracy"]) == metrics["accuracy"]
    assert float(rows[-1]["cost.seconds"]) == metrics["seconds"]["total"]
    settings = yaml.safe_load((folder / "hparams.yaml").read_text())
    assert (settings["method.k"], settings["heads"], settings["model.name"]) == (5, 8, "tiny")


def test_the_curve_of_a_training_begins_at_0_and_has_each_step_once(config, tmp_path):
    edit = replace(config.method, name="learned", edit="learned", where="none", what="none", how="none")
    run(replace(config, method=edit, tracker=TrackerConfig(name="csv")), [])
    (folder,) = (tmp_path / "outputs/csv").iterdir()
    steps = [int(row["step"]) for row in curve(folder) if row.get("loss")]
    assert sorted(steps) == list(range(len(steps))) and len(steps) > 1


def curve(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_search_found_in_the_store_has_its_curve_too(config, tmp_path):
    run(config, [])
    again = replace(config, tracker=TrackerConfig(name="csv"), dataset=replace(config.dataset, eval=5))
    run(again, [])
    rows = curve(tmp_path / "outputs/csv" / signatures(again).run)
    assert sum(bool(row.get("reward")) for row in rows) == config.policy.steps


def test_a_search_that_goes_on_after_a_kill_has_its_whole_curve_once(config, tmp_path, monkeypatch):
    config = replace(config, tracker=TrackerConfig(name="csv"))
    monkeypatch.setattr("stv_exp.stages.checkpoint.EVERY", timedelta(0))
    step, n = CandidateSearch.training_step, iter(range(99))

    def killed(self, *arguments):
        if next(n) == 3:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(CandidateSearch, "training_step", killed)
    with pytest.raises(BaseException):  # noqa: B017 - Lightning makes of it what it likes
        run(config, [])
    monkeypatch.setattr(CandidateSearch, "training_step", step)
    run(config, [])
    rows = curve(tmp_path / "outputs/csv" / signatures(config).run)
    steps = [int(row["step"]) for row in rows if row.get("reward")]
    assert sorted(steps) == list(range(config.policy.steps))


def test_tensorboard_has_settings_curve_and_at_the_last_step_the_final_numbers(config, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = replace(config, tracker=TrackerConfig(name="tensorboard"))
    metrics = run(config, [])
    events = EventAccumulator(str(tmp_path / "outputs/tensorboard" / signatures(config).run)).Reload()
    assert [event.step for event in events.Scalars("reward")] == list(range(config.policy.steps))
    (accuracy,) = events.Scalars("accuracy")
    assert (accuracy.step, accuracy.value) == (config.policy.steps - 1, pytest.approx(metrics["accuracy"]))
    (plugin,) = (name for name in events.Tags()["scalars"] if name == "cost.seconds")
    summary = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert plugin and b"method.k" in summary and b"model.name" in summary


@pytest.mark.parametrize("name", ["none", "wandb"])
def test_the_result_does_not_depend_on_the_tracker(config, tmp_path, name):
    config = replace(config, tracker=TrackerConfig(name=name), outputs=str(tmp_path / name))
    metrics = run(config, [])
    folder = Path(config.outputs, "runs", signatures(config).run)
    assert json.loads((folder / "metrics.json").read_text())["accuracy"] == metrics["accuracy"]
    reference = run(replace(config, tracker=TrackerConfig(name="none"), outputs=str(tmp_path / "reference")), [])
    assert metrics["accuracy"] == reference["accuracy"]


def test_a_tracker_sees_a_run_when_its_results_are_on_disk(config, tmp_path, monkeypatch):
    def finish(self, pictures):
        status = json.loads((self.folder / "status.json").read_text())
        assert status["state"] == "done" and "metrics.json" in status["files"]
        raise AssertionError("seen")

    monkeypatch.setattr(Tracker, "finish", finish)
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


def test_a_query_without_a_picture_stands_among_those_that_have_one(config):
    task = load_task(config)
    mixed = tuple(replace(e, images=e.images if i % 2 else ()) for i, e in enumerate(task.evaluation))
    picture = of_task(replace(task, evaluation=mixed))
    assert [picture(e.id) is None for e in mixed] == [not e.images for e in mixed]
    assert picture("of no query") is None


def test_wandb_online_without_a_login_is_refused_before_any_work(config, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StvError, match=r"tracker\.mode=online needs a login; run `wandb login`, set WANDB_API_KEY"):
        run(replace(config, tracker=TrackerConfig(mode="online")), [])
    assert not list(tmp_path.rglob("status.json"))


@pytest.mark.parametrize("tags", ["['']", f"[good,{'x' * 65}]"])
def test_tags_that_wandb_refuses_are_refused_before_any_work(tags):
    with pytest.raises(StvError, match=r"tracker\.tags=.* must be a list of words, each of at most 64 characters"):
        configure(f"tracker.tags={tags}")
