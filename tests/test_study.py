"""Studies accumulate, processes wait for each other in words, and a killed run is told from a live one."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from stv_exp.disk.files import replaced_file, write_text
from stv_exp.disk.locks import is_held, locked
from stv_exp.disk.study import Entry, Study
from stv_exp.report import comparison
from tests import faults
from tests.forked import run, start
from tests.report_runs import write_run

RUN = ["+experiment=smoke", "tracker=none", "method=zero_shot", "study=mine"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")


def in_study(folder: Path) -> int:
    """Runs in the table of the study."""
    return len((folder / "outputs/sweeps/mine/runs.csv").read_text().splitlines()) - 1


def test_sweeps_and_single_runs_add_to_their_study_until_it_is_started_over(tmp_path):
    for words, n in ((["seed=0,1"], 2), (["seed=1,2"], 3)):
        done = run(tmp_path, "-m", *RUN, *words)
        assert done.returncode == 0 and in_study(tmp_path) == n, done.text
    single = run(tmp_path, *RUN, "seed=3")
    assert single.returncode == 0 and in_study(tmp_path) == 4, "a single run adds itself and redraws the table"
    assert "accuracy" in single.text and "┃" not in single.text, "which only a sweep prints"
    fresh = run(tmp_path, "-m", *RUN, "seed=0,3", "study_fresh=true")
    assert "is done" in fresh.text and in_study(tmp_path) == 2, fresh.text


def test_a_look_up_draws_no_table_anew(tmp_path):
    assert "Written to" in run(tmp_path, *RUN).text
    again = run(tmp_path, *RUN).text
    assert "is done" in again and "Written to" not in again


def test_fail_fast_ends_a_sweep_at_the_first_job_that_fails(tmp_path):
    sweep = ["-m", *RUN, "method.shots=2", "method=few_shot", "dataset.support=2,16"]
    stopped = run(tmp_path, *sweep, "fail_fast=true")
    assert stopped.returncode == 1 and "Error: 2 demonstrations were asked for" in stopped.text, stopped.text
    assert not list(tmp_path.rglob("metrics.json"))
    gone_on = run(tmp_path, *sweep)
    assert gone_on.returncode == 1 and "Failed: 2 demonstrations were asked for" in gone_on.text
    assert "method.shots=2 dataset.support=2: 2 demonstrations" in gone_on.text, "the job is named"
    assert len(list(tmp_path.rglob("metrics.json"))) == 1


def test_tables_that_cannot_be_written_are_no_success(tmp_path):
    folder = tmp_path / "outputs/sweeps/mine"
    (folder / "runs.csv/own").mkdir(parents=True)
    done = run(tmp_path, *RUN)
    assert done.returncode == 1 and "accuracy" in done.text and "The tables could not be written" in done.stderr


def test_a_run_that_ends_while_a_table_is_drawn_is_news_to_it(tmp_path, monkeypatch):
    """A table is as old as its runs were read, not as it was written."""
    study = Study(tmp_path, "mine")
    for name in ("first", "second"):
        write_run(tmp_path, name, ["cat"], ["cat"], seed=len(name))
        study.add(name, Entry(name))
    hidden = (tmp_path / "runs/second").rename(tmp_path / "second")
    written = comparison.Page.write

    def while_drawn(*arguments):
        time.sleep(0.05)
        hidden.rename(tmp_path / "runs/second")
        (tmp_path / "runs/second/status.json").touch()
        written(*arguments)

    monkeypatch.setattr(comparison.Page, "write", while_drawn)
    comparison.report(tmp_path, "mine", printed=False)
    assert len(pd.read_csv(study.folder / "runs.csv")) == 1 and not study.is_drawn
    monkeypatch.setattr(comparison.Page, "write", written)
    comparison.report(tmp_path, "mine", printed=False)
    assert len(pd.read_csv(study.folder / "runs.csv")) == 2 and study.is_drawn


def test_an_entry_waits_for_whoever_clears_the_study_up(tmp_path):
    study = Study(tmp_path, "mine")
    thread = threading.Thread(target=study.add, args=("abc", Entry("a run")))
    study.folder.mkdir(parents=True)
    with locked(study.folder):
        thread.start()
        thread.join(0.3)
        assert thread.is_alive() and not [*study.runs()]
    thread.join(10)
    assert study.entry("abc").title == "a run"


def test_a_killed_run_is_no_running_one(tmp_path):
    middle = faults.operations(tmp_path, *RUN, "seed=1") // 4
    assert run(tmp_path, *RUN, prepare=faults.AtOperation(middle, faults.kill)).returncode == -9
    (folder,) = (p.parent for p in tmp_path.rglob("status.json") if json.loads(p.read_text())["state"] == "running")
    assert (
        f"Run {folder.name} was killed: the same command goes on from there."
        in run(tmp_path, module="stv_exp.report").text
    )
    with locked(folder):
        assert f"{folder.name} is running" in run(tmp_path, module="stv_exp.report").text


def test_waiting_for_another_process_is_said_and_for_whom(tmp_path):
    assert run(tmp_path, *RUN).returncode == 0
    (folder,) = (p.parent for p in tmp_path.rglob("metrics.json"))
    (folder / "predictions.jsonl").unlink()  # else it is looked up without the lock
    with locked(folder):
        waiting = start(tmp_path, *RUN)
        threading.Event().wait(2)
    ended = waiting()
    assert f"Waiting for {folder.name}, which is being made by process {os.getpid()} on " in ended.text
    assert ended.returncode == 0


def test_a_lock_ends_with_its_process(tmp_path):
    folder = tmp_path / "outputs/runs/x"
    with locked(folder):
        assert is_held(folder)
    assert not is_held(folder)


def test_temporary_names_are_random_and_those_of_dead_processes_are_removed(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    with replaced_file(folder / "a") as one, replaced_file(folder / "a") as other:
        assert one != other
        for new in (one, other):
            new.write_text("whole")
    assert [p.name for p in folder.iterdir()] == ["a"]
    (folder / ".a.tmp-dead").write_text("half")
    (tmp_path / ".x.tmp-dead").mkdir()
    (tmp_path / ".xy.tmp-alive").mkdir()
    with locked(folder):
        assert [p.name for p in folder.iterdir()] == ["a"]
    assert {p.name for p in tmp_path.iterdir()} == {"x", ".x.lock", ".xy.tmp-alive"}


def test_a_file_takes_the_permissions_that_any_other_would(tmp_path):
    (tmp_path / "any").write_text("x")
    write_text(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "any").stat().st_mode


@pytest.mark.slow
def test_damage_is_told_once_also_where_it_is_a_pipe(tmp_path):
    """Which nobody may open: it would wait for a writer for ever."""
    for damage in (Path.unlink, lambda path: (path.unlink(), os.mkfifo(path))):
        assert run(tmp_path, *RUN).returncode == 0
        (path,) = tmp_path.rglob("predictions.jsonl")
        damage(path)
        done = run(tmp_path, "-m", *RUN)
        assert done.returncode == 0 and done.text.count("is damaged (predictions.jsonl is") == 1, done.text
