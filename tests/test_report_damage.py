"""One bad folder never stops a report: it is named, and the others are compared."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from stv_exp.artefacts.bank import Bank
from stv_exp.disk.files import write_json
from stv_exp.disk.locks import locked
from stv_exp.errors import StvError
from stv_exp.report.common import compared
from stv_exp.report.comparison import report
from stv_exp.report.runs import load
from stv_exp.report.states import unfinished
from stv_exp.report.tables import headline
from tests.report_runs import write_run

FILES = ("status.json", "manifest.json", "metrics.json", "predictions.jsonl")


def removed(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def holding(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


WAYS = {
    **{way.__name__: way for way in (removed, a_folder, a_pipe, a_circle, cut)},
    **{text or "empty": holding(text.encode()) for text in ("", "{}", "[]", "null", "NaN", '"text"', "{}\n{}", "\0")},
    "binary": holding(bytes(range(256))),
    "latin": holding('{"é": 1}'.encode("latin-1")),
    "nested": holding(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "nested a little": holding(b'{"settings":' + b'{"a":' * 400 + b"1" + b"}" * 401),
    "lists": holding(b"[" * 100_000),
    "large": holding(b'{"n": ' + b"9" * 10_000 + b"}"),
}


def read(outputs: Path) -> tuple[set[str], str]:
    """The signatures that are compared when a good run lies beside, and the notes."""
    if not (outputs / "runs/good").exists():
        write_run(outputs, "good", ["cat"], ["cat"], method={"name": "good"})
    found = load(outputs)
    runs, notes = compared(found.runs)
    assert len(headline(runs, found.predictions, "").rows) == len(set(runs["label"]))
    return set(runs["run"]), "\n".join([*found.notes, *notes])


def reported(outputs: Path, capsys) -> str:
    """What the whole report prints."""
    read(outputs)
    report(outputs)
    return capsys.readouterr().out


@pytest.mark.parametrize("checked", [False, True], ids=["of 0.2", "with checksums"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_costs_its_run_and_no_other(tmp_path, file, way, checked):
    WAYS[way](write_run(tmp_path, "bad", ["cat", "dog"], ["cat"], checked=checked) / file)
    kept, notes = read(tmp_path)
    assert kept == {"good"}
    assert notes.startswith(f"Run bad is damaged ({file}")
    assert notes.endswith("it is left out; the same command makes it anew.")


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    if isinstance(value, dict):
        for key, own in value.items():
            yield from leaves(own, (*place, key))


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    return value | {place[0]: replaced(value[place[0]], place[1:], new)}


WRONG = (None, True, -1, 10**30, float("nan"), "", "text", [], [[]], {}, {"a": 1})
ORIGIN = {"code": {"scan": 3, "run": 3}, "model": "abc", "data": "def"}


@pytest.mark.parametrize("file", [FILES[0], *(pytest.param(file, marks=pytest.mark.slow) for file in FILES[1:])])
def test_a_value_of_another_kind_costs_its_run_at_most(tmp_path, file):
    whole = write_run(tmp_path / "whole", "bad", ["cat"], ["cat"], origin=ORIGIN, checked=file == "status.json")
    value = json.loads((whole / file).read_text())
    bad = tmp_path / "runs/bad"
    for place in leaves(value):
        for new in WRONG:
            shutil.rmtree(bad, ignore_errors=True)
            shutil.copytree(whole, bad)
            (bad / file).write_text(json.dumps(replaced(value, place, new)) + "\n")
            kept, notes = read(tmp_path)
            assert kept == {"good", "bad"} or "bad is damaged" in notes, (place, new)


def test_predictions_cut_between_two_lines_are_not_all(tmp_path, capsys):
    path = write_run(tmp_path, "bad", ["cat"] * 3, ["cat"]) / "predictions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    assert "bad is damaged (predictions.jsonl has 2 lines, metrics.json counts 3)" in reported(tmp_path, capsys)


def test_an_item_that_was_answered_twice_is_damage(tmp_path, capsys):
    path = write_run(tmp_path, "bad", ["cat"] * 2, ["cat"]) / "predictions.jsonl"
    path.write_text(path.read_text().replace("q1", "q0"))
    assert "bad is damaged (predictions.jsonl has an id twice)" in reported(tmp_path, capsys)


def test_a_copy_of_a_run_is_no_second_run(tmp_path, capsys):
    folder = write_run(tmp_path, "good", ["cat"], ["cat"], method={"name": "good"})
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", manifest | {"signature": "good"})
    shutil.copytree(folder, tmp_path / "runs/copy")
    assert "copy is damaged (manifest.json is that of the run good)" in reported(tmp_path, capsys)


def test_what_is_no_run_folder_is_named_and_what_is_hidden_is_not(tmp_path, capsys):
    (tmp_path / "runs/empty").mkdir(parents=True)
    (tmp_path / "runs/notes.txt").touch()
    (tmp_path / "runs/.abc.lock").touch()
    (tmp_path / "runs/gone").symlink_to(tmp_path / "nowhere")
    printed = reported(tmp_path, capsys)
    assert "runs/notes.txt is no run's folder: it is left out." in printed
    assert "runs/gone is no run's folder" in printed
    assert "Run empty is damaged (status.json is missing)" in printed
    assert ".abc.lock" not in printed


def test_jobs_that_are_no_runs_of_a_method_are_not_named(tmp_path, capsys):
    folder = write_run(tmp_path, "weights", ["cat"], ["cat"])
    write_json(folder / "manifest.json", {"settings": {"pretrain": {"steps": 3}}, "seed": 0})
    (folder / "metrics.json").unlink()
    assert "weights" not in reported(tmp_path, capsys)


def test_runs_of_a_study_that_are_not_there_yet_are_counted(tmp_path, capsys):
    write_run(tmp_path, "good", ["cat"], ["cat"])
    (tmp_path / "sweeps/s").mkdir(parents=True)
    for name in ("good", "later", "last"):
        (tmp_path / f"sweeps/s/{name}.run").touch()
    report(tmp_path, "s")
    assert "2 of 3 runs of the study have no folder yet: last, later." in capsys.readouterr().out


WHO = {"pid": 7, "host": "here", "since": "2026-01-01 10:00:00"}
STATES = {
    "running": "Run bad was killed: the same command goes on from there.",
    "interrupted": "Run bad was interrupted (why): the same command goes on from there.",
    "failed": "Run bad is failed: why",
}


@pytest.mark.parametrize("state", STATES)
def test_what_has_not_ended_well_is_told_by_how_it_ended(tmp_path, capsys, state):
    folder = write_run(tmp_path, "bad", ["cat"], ["cat"])
    write_json(folder / "status.json", {"state": state, "error": "why", **WHO})
    assert f"note: {STATES[state]}" in reported(tmp_path, capsys)


def test_a_run_is_running_while_its_lock_is_held(tmp_path):
    folder = write_run(tmp_path, "bad", ["cat"], ["cat"])
    status = {"state": "running", **WHO}
    with locked(folder):
        assert unfinished(folder, status) == "Run bad is running (process 7 on host here, since 2026-01-01 10:00:00)."
    assert unfinished(folder, status) == "Run bad was killed: the same command goes on from there."


@pytest.mark.parametrize("way", [*WAYS, "step,random\n1,2\n", "reward,reward_random\n", "reward,reward_random\n1,x\n"])
def test_a_damaged_history_costs_its_curve(tmp_path, capsys, way):
    path = write_run(tmp_path, "bad", ["cat"], ["cat"]) / "history.csv"
    path.write_text("reward,reward_random\n" + "1,2\n" * 5 + "1,2")
    WAYS.get(way, holding(way.encode()))(path)
    printed = reported(tmp_path, capsys)
    assert len(pd.read_csv(tmp_path / "report/runs.csv")) == 2
    if way not in ("removed", "cut"):  # which cannot be told from no search and from a shorter one
        assert "Run bad has no curve, as its history.csv" in printed
        assert not (tmp_path / "report/rewards.png").exists()


def bank(outputs: Path, **changes: Any) -> Path:
    """A run and the bank that its locations are from."""
    folder = write_run(outputs, "run", ["cat"], ["cat"])
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", manifest | {"inputs": {"bank": "b"}})
    path = outputs / "stages/bank-b/artefact.safetensors"
    path.parent.mkdir(parents=True)
    locations, sizes = torch.tensor([[0, 1], [1, 0]]), torch.ones(2, 1)
    values = {"locations": locations, "centroids": torch.zeros(2, 1, 3), "sizes": sizes, "scores": torch.rand(2, 2)}
    Bank(**values | changes).save(path)
    return path


BROKEN = {way: WAYS[way] for way in ("removed", "a_folder", "a_pipe", "cut", "binary", "empty", "{}")}
SHAPES = {"no scores": torch.zeros(0, 2), "a number": torch.tensor(1.0), "three": torch.rand(2, 2, 2, 2), "text": "x"}


@pytest.mark.parametrize("way", [*BROKEN, *SHAPES])
def test_a_damaged_bank_costs_its_picture(tmp_path, capsys, way):
    path = bank(tmp_path, **({"scores": SHAPES[way]} if way in SHAPES else {}))
    BROKEN.get(way, lambda path: None)(path)
    assert "No sensitivity is drawn of bank-b: artefact.safetensors" in reported(tmp_path, capsys)
    assert not (tmp_path / "report/sensitivity.png").exists()


def test_a_picture_that_can_no_longer_be_drawn_is_not_left_from_before(tmp_path, capsys):
    path = bank(tmp_path)
    reported(tmp_path, capsys)
    assert (tmp_path / "report/sensitivity.png").stat().st_size > 5000
    path.unlink()
    reported(tmp_path, capsys)
    assert not (tmp_path / "report/sensitivity.png").exists()


@pytest.mark.parametrize("name", ["runs", "sweeps/s"])
def test_a_file_where_a_folder_should_be_is_said(tmp_path, name):
    write_run(tmp_path, "good", ["cat"], ["cat"])
    path = tmp_path / name
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(StvError, match=rf"{name} cannot be read \(Not a directory\); check the path"):
        report(tmp_path, "s")
