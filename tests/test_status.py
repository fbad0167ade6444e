"""`python -m stv_exp.status` tells what is done, running, failed and left, from the disk alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from stv_exp import progress
from stv_exp.disk.files import write_json
from stv_exp.disk.locks import locked
from stv_exp.disk.study import Entry, Study
from stv_exp.errors import StvError
from stv_exp.progress import Meter, placed
from stv_exp.report.states import read_status, unfinished
from stv_exp.status import job_of, studies
from tests.forked import run
from tests.report_runs import write_run


def status(outputs, name, state, **rest):
    folder = outputs / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "status.json", {"state": state, **rest})
    return folder


@pytest.fixture
def outputs(tmp_path):
    """A study of five jobs: done, killed, failed, interrupted and left; and a run in no study."""
    study = Study(tmp_path, "mine")
    for i, name in enumerate(("done", "killed", "failed", "stopped", "left"), 1):
        study.add(name, Entry(f"stv k={i}", i, 5))
    write_run(tmp_path, "done", ["x"], ["x"])
    write_run(tmp_path, "alone", ["x"], ["x"])
    status(tmp_path, "killed", "running", host=os.uname().nodename, pid=1, since="noon")
    status(tmp_path, "failed", "failed", error="StvError: no [b]data[/b]")
    status(tmp_path, "stopped", "interrupted", error="Stopped by SIGTERM")
    return tmp_path


def test_every_job_of_a_study_has_a_state_and_a_reason(outputs):
    found = {job.title: (job.state, job.note) for job in studies(outputs)["mine"]}
    assert found == {
        "stv k=1": ("done", ""),
        "stv k=2": ("killed", "the same command goes on from there"),
        "stv k=3": ("failed", "StvError: no [b]data[/b]"),
        "stv k=4": ("interrupted", "Stopped by SIGTERM"),
        "stv k=5": ("left", ""),
    }
    assert [job.title for job in studies(outputs)[""]] == ["alone"]


def test_a_running_job_is_told_by_its_lock_and_says_how_far_it_is(outputs):
    folder = outputs / "runs" / "killed"
    write_json(folder / progress.NAME, {"stage": "search", "done": 120, "total": 300, "seconds_left": 240.0})
    with locked(folder):
        job = job_of(folder, Entry("stv"))
    assert job.state == "running" and job.note.startswith("search 120/300, 4 min left; is running (process 1")


@pytest.mark.parametrize(("minutes", "state"), [(1, "running"), (30, "killed")])
def test_a_job_of_another_machine_lives_as_long_as_it_gives_signs(outputs, minutes, state):
    folder = status(outputs, "far", "running", host="elsewhere", pid=1, since="noon")
    at = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
    write_json(folder / progress.NAME, {"stage": "scan", "done": 1, "total": 2, "seconds_left": 9, "at": at})
    assert job_of(folder, Entry("stv")).state == state
    report = unfinished(folder, read_status(folder)) or ""
    assert ("is running" if state == "running" else "was killed") in report, "the report says the same"


@pytest.mark.parametrize("text", ["", "{}", "null", '{"state": "done", "files": {"metrics.json": "0"}}'])
def test_a_damaged_job_is_named_and_the_others_are_shown(outputs, text):
    (outputs / "runs/done/status.json").write_text(text)
    states = [job.state for job in studies(outputs)["mine"]]
    assert states.count("damaged") == 1 and len(states) == 5


def test_an_empty_folder_and_an_unknown_study_are_refused(tmp_path, outputs):
    with pytest.raises(StvError, match="There is no job in the study other of"):
        studies(outputs, "other")
    with pytest.raises(StvError, match="There is no job in"):
        studies(tmp_path / "nothing")


def test_the_status_is_printed_a_line_a_job_that_needs_a_look(outputs):
    done = run(outputs.parent, "status", str(outputs), "--study", "mine")
    assert done.returncode == 0 and "mine: 5 jobs: 1 failed, 1 interrupted, 1 killed, 1 left, 1 done" in done.stdout
    assert "failed      stv k=3: StvError: no [b]data[/b]" in done.stdout


def test_progress_is_told_in_the_log_now_and_then_and_kept_for_others(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(progress, "LINE", 0.0)
    monkeypatch.setattr(progress, "FILE", 0.0)
    with placed("[7/48] stv k=8", tmp_path), caplog.at_level("INFO"):
        meter = Meter("search", 300)
        meter.begin(100)
        meter.advance(20)
        assert json.loads((tmp_path / progress.NAME).read_text())["done"] == 120
    assert caplog.messages == ["[7/48] stv k=8 - search 120/300, 1 s left"]
    assert not (tmp_path / progress.NAME).exists(), "nothing goes on any more"


def test_what_reads_the_disk_alone_imports_nothing_heavy():
    code = "import sys, stv_exp.status; print({'torch', 'transformers', 'lightning', 'matplotlib'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
