"""What is kept of a study makes the same tables, grows by parts, and is never lost to a damaged run or archive."""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import yaml

import stv_exp
from stv_exp.disk.files import checksum, damaged, read_json, write_json
from stv_exp.disk.study import Entry, Study
from stv_exp.figures import LOCK, SPEC, draw, figures
from stv_exp.keep import KEPT, SUFFIX, main
from tests.report_study import write_study

ROOT = Path(__file__).parents[1]
KEPT_RUNS = sorted((ROOT / "experiments" / "runs").glob(f"*{SUFFIX}"))
STUDIES = sorted(path.parent for path in ROOT.glob("experiments/**/figures.yaml"))


@pytest.fixture
def outputs(tmp_path) -> Path:
    write_study(tmp_path / "outputs", [2, 4], [1], [0, 1], ["easy", "hard"])
    for run in sorted((tmp_path / "outputs" / "runs").iterdir()):
        files = {path.name: checksum(path) for path in run.iterdir() if path.name != "status.json"}
        write_json(run / "status.json", {"state": "done", "files": files})
        Study(tmp_path / "outputs", "all").add(run.name, Entry("a title", 1, 2))
    return tmp_path / "outputs"


def kept(monkeypatch, outputs: Path, study: str = "all") -> int:
    monkeypatch.setattr(sys, "argv", ["keep", study, str(outputs.parent / "kept"), str(outputs)])
    return main()


def unpacked(archive: Path, outputs: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(outputs, filter="data")
    return outputs


def test_unpacked_runs_are_done_and_say_what_the_runs_said(monkeypatch, outputs):
    assert kept(monkeypatch, outputs) == 0
    again = unpacked(outputs.parent / "kept" / "all.tar.xz", outputs.parent / "again")
    pd.testing.assert_frame_equal(*(stv_exp.runs(own).drop(columns="folder") for own in (outputs, again)))
    pd.testing.assert_frame_equal(*(stv_exp.predictions(own) for own in (outputs, again)))
    for run in Study(again, "all").runs():
        status = read_json(run / "status.json")
        assert status["state"] == "done" and damaged(run, status) is None, "so that no sweep makes them anew"
        assert {path.name for path in run.iterdir()} <= {*KEPT, "status.json"}, "no vectors, no pictures"
        assert Study(again, "all").entry(run.name) == Entry("a title", 1, 2)


def test_a_study_is_kept_in_parts_and_the_same_runs_are_the_same_bytes(monkeypatch, outputs):
    whole, first, second = (outputs.parent / name for name in ("whole", "first", "second"))
    runs = [run.name for run in Study(outputs, "all").runs()]
    for part, names in ((first, runs[:5]), (second, runs[5:]), (whole, runs)):
        shutil.copytree(outputs, part / "outputs")
        for name in set(runs) - set(names):
            (part / "outputs" / "sweeps" / "all" / f"{name}.run").unlink()
    assert kept(monkeypatch, whole / "outputs") == 0
    assert kept(monkeypatch, first / "outputs") == 0
    (first / "kept").rename(second / "kept")
    assert kept(monkeypatch, second / "outputs") == 0
    assert (second / "kept/all.tar.xz").read_bytes() == (whole / "kept/all.tar.xz").read_bytes()


def test_runs_that_are_not_done_or_damaged_are_left_out(monkeypatch, capsys, outputs):
    damaged_run, running, *rest = Study(outputs, "all").runs()
    (damaged_run / "predictions.jsonl").write_text("")
    (running / "status.json").write_text('{"state": "running"}')
    assert kept(monkeypatch, outputs) == 0
    assert f"{len(rest)} runs" in capsys.readouterr().out
    again = unpacked(outputs.parent / "kept" / "all.tar.xz", outputs.parent / "again")
    assert [run.name for run in Study(again, "all").runs()] == [run.name for run in rest]


def test_what_cannot_be_kept_is_a_sentence_and_costs_no_archive(monkeypatch, capsys, outputs):
    assert kept(monkeypatch, outputs, "other") == 1
    assert "There is no finished run in the study other" in capsys.readouterr().err
    archive = outputs.parent / "kept" / "all.tar.xz"
    assert not archive.exists()
    archive.parent.mkdir()
    for content in (b"no archive", b""):
        archive.write_bytes(content)
        assert kept(monkeypatch, outputs) == 1
        assert "all.tar.xz is damaged (" in capsys.readouterr().err and archive.read_bytes() == content
    archive.unlink()
    assert kept(monkeypatch, outputs) == 0
    archive.write_bytes(half := archive.read_bytes()[:-100])
    assert kept(monkeypatch, outputs) == 1
    assert "is damaged (" in capsys.readouterr().err and archive.read_bytes() == half


def tables_of_kept_runs(folder: Path) -> dict[str, set[str]]:
    """The figures that need nothing but tables' files of runs that are kept, and the studies whose runs these are."""
    names = {archive.name.removesuffix(SUFFIX) for archive in KEPT_RUNS}
    asked = {
        name: {own.study for own in (figure.runs, *figure.groups.values()) if own is not None}
        for name, figure in figures(folder).items()
        if not figure.picture and not figure.heads
    }
    return {name: studies for name, studies in asked.items() if studies <= names}


@pytest.mark.parametrize("folder", [own for own in STUDIES if tables_of_kept_runs(own)], ids=lambda path: path.name)
def test_every_table_of_kept_runs_is_what_they_say(folder, tmp_path):
    """Of a run that two studies have each keeps its own, with seconds of its own."""
    tables = tables_of_kept_runs(folder)
    for archive in KEPT_RUNS:
        if archive.name.removesuffix(SUFFIX) in set().union(*tables.values()):
            unpacked(archive, tmp_path / "outputs")
    asked = yaml.safe_load((folder / SPEC).read_text())
    spec = {name: asked[name] for name in tables}
    (tmp_path / SPEC).write_text(yaml.safe_dump(spec, sort_keys=False))
    (tmp_path / "README.md").write_text("# Anew\n")
    draw(tmp_path, tmp_path / "outputs")
    locks = [yaml.safe_load((own / LOCK).read_text()) for own in (folder, tmp_path)]
    for name in spec:
        assert (tmp_path / f"{name}.csv").read_text() == (folder / f"{name}.csv").read_text()
        assert locks[0][f"{name}.csv"] == locks[1][f"{name}.csv"]
