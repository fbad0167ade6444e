"""What is on disk arrives in W&B: from run folders alone, once each, from another machine too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stv_exp.disk.files import damaged
from stv_exp.errors import StvError
from stv_exp.publish.publication import check_board
from stv_exp.tracker_config import TrackerConfig
from stv_exp.tracking import pictures
from stv_exp.tracking.exhibit import Exhibit
from stv_exp.tracking.sent import is_sent
from tests import forked
from tests.report_runs import write_run
from tests.wandb_runs import offline_runs
from tests.wandb_server import Received, serving

TRAP = 'it\'s = "1" > 0, é'
SWEEP = ["-m", "+experiment=smoke", "method=stv,zero_shot", "policy.steps=2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Where two jobs have been run that no tracker has seen."""
    folder = tmp_path_factory.mktemp("made")
    done = forked.run(folder, *SWEEP, "tracker=none")
    assert done.returncode == 0, done.text
    return folder


@pytest.fixture(scope="module")
def place(made, tmp_path_factory) -> Path:
    """The same, published offline."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copytree(made / "outputs", folder / "outputs")
    assert "2 runs written to outputs/wandb; 0 there already." in publish(folder, "--images", "2").stdout
    return folder


def publish(folder: Path, *words: str) -> forked.Ended:
    done = forked.run(folder, *words, module="stv_exp.publish")
    assert done.returncode == 0, done.text
    return done


def runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("outputs/runs/*/metrics.json"))


def test_a_published_run_is_in_wandb_as_a_tracked_one_is(place):
    (stv, prompting) = sorted(offline_runs(place / "outputs"), key=lambda seen: seen.run["display_name"])
    assert stv.run["display_name"] == "stv k=4 m=2 steps=2 position-shared-0 s0"
    assert prompting.run["display_name"] == "zero_shot steps=2 position-shared-0 s0"
    assert [h["item"]["step"] for h in stv.of("history") if "reward" in h["item"]] == [0, 1]
    assert {"scan", "bank", "task_vector", "tables"} == stv.artifacts.keys()
    assert prompting.artifacts.keys() == {"tables"}
    for seen in (stv, prompting):
        folder = place / "outputs/runs" / seen.config["signature"]
        assert seen.summary["accuracy"] == json.loads((folder / "metrics.json").read_text())["accuracy"]
        pictured = [row[-1] is not None for row in seen.table("predictions")["data"]]
        assert pictured == [True] * 2 + [False] * 6


def test_a_run_is_published_once_and_stays_whole(place):
    again = publish(place, "--study", "smoke")
    assert "0 runs written to outputs/wandb; 2 there already." in again.stdout
    for folder in runs(place):
        assert damaged(folder, json.loads((folder / "status.json").read_text())) is None


def test_a_run_whose_offline_folder_is_gone_is_published_again(place, tmp_path):
    shutil.copytree(place / "outputs", tmp_path / "outputs")
    (run, _) = runs(tmp_path)
    assert is_sent(run, TrackerConfig())
    assert not is_sent(run, TrackerConfig(project="other")) and not is_sent(run, TrackerConfig(mode="online"))
    shutil.rmtree(tmp_path / "outputs/wandb")
    assert not is_sent(run, TrackerConfig())


def test_the_dry_run_of_wandb_sync_names_the_runs(place):
    folders = [seen.folder for seen in offline_runs(place / "outputs")]
    command = [sys.executable, "-m", "wandb", "sync", "--dry-run", *map(str, folders)]
    env = {**os.environ, "WANDB_SILENT": "false"}
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)
    assert "Would sync 2 run(s)" in done.stdout + done.stderr, done.stderr


@pytest.fixture
def server(monkeypatch) -> Received:
    with serving() as received:
        online(monkeypatch, received.address)
        yield received


def online(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """W&B as one who has a login there finds it; `tests.conftest` has turned it off."""
    for name, value in (("WANDB_BASE_URL", address), ("WANDB_API_KEY", "a" * 40), ("WANDB_MODE", "online")):
        monkeypatch.setenv(name, value)


def test_an_offline_run_survives_a_copy_to_another_machine(place, tmp_path, server):
    """As `wandb sync` there takes it: nothing is left of the folder where it was made."""
    (seen,) = (seen for seen in offline_runs(place / "outputs") if seen.config["method"]["name"] == "stv")
    shutil.copytree(place / "outputs", tmp_path / "outputs")
    hidden = place.rename(place.with_name("gone"))
    try:
        command = [sys.executable, "-m", "wandb", "sync", "--yes", f"outputs/wandb/{seen.folder.name}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    finally:
        hidden.rename(place)
    vector = place / "outputs/runs" / seen.config["signature"] / "task_vector.safetensors"
    assert server.files["task_vector.safetensors"] == vector.read_bytes()
    assert {"predictions.table.json", "ranking.table.json", "record.json"} <= server.files.keys()
    assert sum(name.startswith("media/images/") for name in server.files) == 2 + 1  # of two queries, and the map


def test_online_the_stages_are_what_a_run_has_used(made, tmp_path, server):
    shutil.copytree(made / "outputs", tmp_path / "outputs")
    done = publish(tmp_path, "--mode", "online", "--entity", "me", "--images", "0")
    assert "2 runs sent to the project stv_exp; 0 there already." in done.stdout
    (stv,) = (folder for folder in runs(tmp_path) if (folder / "task_vector.safetensors").is_file())
    inputs = Exhibit.read(stv).inputs
    assert server.used == [f"scan-{inputs['scan']}", f"bank-{inputs['bank']}"]
    metadata = json.loads(server.artifacts[f"task-vector-{stv.name}"]["metadata"])
    assert metadata["from"] == f"bank-{inputs['bank']}"
    sent = json.loads((stv / ".sent.json").read_text())["online:me/stv_exp"]
    assert sent["url"].endswith(sent["id"]) and sent["id"] in server.runs
    assert "2 there already" in publish(tmp_path, "--mode", "online", "--entity", "me").stdout


@pytest.mark.slow
def test_a_sweep_of_lookups_says_what_is_not_in_wandb_and_sends_it_if_asked(made, tmp_path):
    shutil.copytree(made / "outputs", tmp_path / "outputs")
    said = forked.run(tmp_path, *SWEEP).stdout
    assert said.count("note: runs that are looked up and not in W&B yet are sent there by tracker.publish=true") == 1
    assert not offline_runs(tmp_path / "outputs")
    sent = forked.run(tmp_path, *SWEEP, "tracker.publish=true", "tracker.images=0")
    assert sent.returncode == 0 and "not in W&B yet" not in sent.stdout, sent.text
    assert len(offline_runs(tmp_path / "outputs")) == 2


def test_publishing_needs_no_torch(made, tmp_path):
    shutil.copytree(made / "outputs", tmp_path / "outputs")
    code = (
        "import sys; from stv_exp.publish.__main__ import main; sys.argv = ['publish', '--study', 'smoke']; main(); "
        "print([m for m in ('torch', 'transformers', 'lightning', 'hydra') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_pictures_are_those_of_the_data_that_the_run_was_asked_about(made):
    exhibit = Exhibit.read(runs(made)[0])
    query = exhibit.predictions[0]["id"]
    assert pictures.of_run(exhibit)(query) is not None
    other = exhibit.manifest | {"origin": exhibit.manifest["origin"] | {"data": "other"}}
    assert pictures.of_run(replace(exhibit, manifest=other))(query) is None


def test_what_is_damaged_or_not_done_is_named_and_left_out(tmp_path):
    outputs = tmp_path / "outputs"
    for name in ("good", "cut", "failed", "unread"):
        write_run(outputs, name, ["a", "b"], ["a"], checked=True)
    (outputs / "runs/cut/metrics.json").write_text("{}")
    (outputs / "runs/unread/manifest.json").write_text("{")
    (outputs / "runs/failed/status.json").write_text('{"state": "failed", "error": "it broke"}')
    said = publish(tmp_path).stdout
    assert "note: Run cut is damaged (metrics.json has changed since it was written): it is left out." in said
    assert "note: Run failed is failed: it broke" in said and "note: Run unread is damaged" in said
    (seen,) = offline_runs(outputs)
    assert [row[3:5] for row in seen.table("predictions")["data"]] == [["b", 0], ["a", 1]]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--study", "nope"], "outputs has no study nope; its studies are smoke."),
        (["elsewhere"], "There is no finished run in elsewhere; run `python -m stv_exp +experiment=quickstart` first."),
        (["--project", "a/b"], "--project=a/b is not possible; it must be a name without"),
        (["--entity", "a b"], "--entity=a b is not possible; it must be the name of a user or a team."),
        (["--images", "-1"], "--images=-1 is not possible; it must be at least 0"),
        (["--mode", "online"], "tracker.mode=online needs a login; run `wandb login`, set WANDB_API_KEY"),
    ],
)
def test_what_cannot_be_published_is_told_in_one_sentence(made, tmp_path, monkeypatch, words, sentence):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    done = forked.run(made, *words, module="stv_exp.publish")
    assert done.returncode == 1 and f"Error: {sentence}" in done.stderr, done.text
    assert "Traceback" not in done.text


def test_without_a_network_the_address_is_told(made, monkeypatch):
    online(monkeypatch, "http://127.0.0.1:9")
    done = forked.run(made, "--mode", "online", module="stv_exp.publish")
    assert done.returncode == 1
    assert "Error: W&B cannot be reached at http://127.0.0.1:9; check the network" in done.stderr, done.text


@pytest.fixture(scope="module")
def saved(made, tmp_path_factory) -> Received:
    """A server that has been sent the runs of a study whose name is a trap for filters, its view and its report."""
    pytest.importorskip("wandb_workspaces", reason="the extra `workspace` is not installed")
    folder = tmp_path_factory.mktemp("saved")
    shutil.copytree(made / "outputs", folder / "outputs")
    (folder / "outputs/sweeps/smoke").rename(folder / "outputs/sweeps" / TRAP)
    with serving() as received, pytest.MonkeyPatch.context() as monkeypatch:
        online(monkeypatch, received.address)
        done = publish(folder, "--study", TRAP, "--images", "0", "--workspace")
    assert done.stdout.count(f"{received.address}/me/stv_exp") == 2
    return received


def test_a_saved_view_shows_what_a_study_is_about(saved):
    (view,) = saved.views.values()
    spec = json.loads(view["spec"])["section"]
    sections = {s["name"]: s["panels"] for s in spec["panelBankConfig"]["sections"]}
    over = sections["Accuracy over K by M"][0]["config"]
    axes = [over[axis] for axis in ("xAxis", "yAxis", "zAxis")]
    assert axes == ["config:method.value.k", "summary:accuracy", "config:method.value.m"]
    grouped = [p["config"]["groupBy"] for p in sections["Methods over tasks"]]
    assert grouped == ["dataset.value.task", "method.value.name"]
    rewards = {p["config"]["metrics"][0]: p["config"] for p in sections["Curves of the search"]}
    assert {"reward", "reward_random"} <= rewards.keys()
    assert (rewards["reward"]["xAxis"], rewards["reward"]["groupArea"]) == ("step", "stddev")
    costs = [p["config"] for p in sections["Cost against accuracy"]]
    assert [c["xAxis"] for c in costs] == ["summary:cost.token_forwards", "summary:cost.seconds"]
    assert all(c["xAxisLogScale"] for c in costs)
    assert "predictions" in json.dumps(sections["Predictions"])
    assert [f["value"] for f in spec["runSets"][0]["filters"]["filters"]] == [TRAP]


def test_a_report_has_a_row_of_runs_for_each_method(saved):
    (report,) = saved.reports.values()
    blocks = json.loads(report["spec"])["blocks"]
    headings = [block["children"][0]["text"] for block in blocks if block["type"] == "heading"]
    grids = [block["metadata"]["runSets"] for block in blocks if block["type"] == "panel-grid"]
    shown = dict(zip(headings, grids, strict=True))
    rows = {row["name"]: row for row in shown["Methods over tasks"]}
    assert rows.keys() == {"stv", "zero_shot"}
    filters = rows["stv"]["filters"]["filters"]
    assert [(f["key"]["name"], f["value"]) for f in filters] == [("group", TRAP), ("jobType", "stv")]
    assert {"Accuracy over K by M", "Curves of the search", "Cost against accuracy", "Predictions"} < shown.keys()


def test_a_workspace_is_refused_offline_and_without_its_package(made, monkeypatch):
    monkeypatch.setattr("stv_exp.publish.publication.find_spec", lambda name: object())
    with pytest.raises(StvError, match="--workspace does not go with --mode offline"):
        check_board(TrackerConfig(mode="offline"), True)
    monkeypatch.setattr("stv_exp.publish.publication.find_spec", lambda name: None)
    with pytest.raises(StvError, match=r"run: pip install 'stv_exp\[workspace\]'"):
        check_board(TrackerConfig(mode="online"), True)
