"""What a report averages, pairs and compares is the same thing; the rest is another row or task, and it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stv_exp.report.comparison import report
from stv_exp.report.question import Question
from tests.report_runs import write_run

RIGHT, WRONG = ["cat", "cat"], ["dog", "dog"]
HUB = {"name": "hub", "task": "default", "root": "owner/a"}
MTV = {"name": "mtv"}


def origin(code: int = 3, model: str = "abc", data: str = "d1") -> dict[str, Any]:
    return {"code": dict.fromkeys(("scan", "bank", "policy", "run"), code), "model": model, "data": data}


def rows(folder: Path) -> dict[str, str]:
    """The accuracies by row, which is a method and, where there are several, its model."""
    table = pd.read_csv(folder / "table.csv", dtype=str)
    models = " model=" + table["model"] if "model" in table else ""
    return dict(zip(table["method"] + models, table["accuracy"], strict=True))


def tasks(folder: Path) -> list[str]:
    return pd.read_csv(folder / "tasks.csv")["task"].tolist()


def notes(capsys) -> str:
    return "\n".join(line for line in capsys.readouterr().out.splitlines() if line.startswith("note: "))


def test_runs_of_two_versions_of_the_code_are_two_rows(tmp_path, capsys):
    write_run(tmp_path, "old", WRONG, ["cat"], origin=origin(2))
    write_run(tmp_path, "new", RIGHT, ["cat"], origin=origin(3), seed=1)
    assert rows(report(tmp_path)) == {"stv version=2": "0.000", "stv version=3": "1.000"}
    assert "Runs of 2 versions of the code are rows of their own: version=2, version=3." in notes(capsys)


def test_a_run_of_0_2_is_read_and_is_no_average_with_one_of_now(tmp_path):
    write_run(tmp_path, "old", WRONG, ["cat"])
    write_run(tmp_path, "new", RIGHT, ["cat"], origin=origin(), checked=True, seed=1)
    folder = report(tmp_path)
    assert set(rows(folder)) == {"stv version=unknown model=unknown", "stv version=3 model=abc"}


def test_a_version_that_a_method_has_no_use_for_splits_none_of_its_rows(tmp_path):
    for seed, scan in enumerate((3, 4)):
        made = {**origin(), "code": {"scan": scan, "train": scan, "run": 3}}
        for name, stage in (("stv", "scan"), ("savs", "scan"), ("lora", "train"), ("zero_shot", "evaluation")):
            spent = {"seconds": {stage: 1.0, "total": 1.0}}
            folder, own = f"{name}{seed}", {"name": name}
            write_run(tmp_path, folder, RIGHT, ["cat"], origin=made, seed=seed, method=own, metrics=spent)
    split = {f"{name} version={version}" for name in ("stv", "savs", "lora") for version in (3, 4)}
    assert set(rows(report(tmp_path))) == split | {"zero_shot"}


def test_a_choices_second_version_is_told_from_its_first_and_from_no_other(tmp_path):
    spent = {"seconds": {"train": 1.0, "total": 1.0}}
    for seed in (0, 1):
        for name in ("i2cl", "lora"):
            own, second = {"name": name, "edit": name}, {"edit": 2} if seed and name == "i2cl" else {}
            made = {**origin(), "code": {"train": 2, "run": 3, **second}}
            write_run(tmp_path, f"{name}{seed}", RIGHT, ["cat"], origin=made, seed=seed, method=own, metrics=spent)
    assert set(rows(report(tmp_path))) == {"i2cl version=1", "i2cl version=2", "lora"}


def test_wrong_labels_of_two_kinds_are_two_rows_and_right_ones_are_one(tmp_path):
    for seed, more in enumerate(({}, {"labels": 2})):
        made = {**origin(), "code": {"run": 3, **more}}
        noisy = {"name": "toy", "task": "a", "label_noise": 0.3}
        write_run(tmp_path, f"noisy{seed}", RIGHT, ["cat"], origin=made, seed=seed, dataset=noisy)
        write_run(tmp_path, f"right{seed}", RIGHT, ["cat"], origin=origin(), seed=seed, method={"name": "mean"})
    assert set(rows(report(tmp_path))) == {*(f"stv label_noise=0.3 version={v}" for v in (1, 2)), "mean"}


def test_chats_that_were_taught_to_end_otherwise_are_two_rows_and_prompting_is_one(tmp_path):
    spent = {"seconds": {"policy": 1.0, "total": 1.0}}
    for seed, more in enumerate(({}, {"ends": 2})):
        made = {**origin(), "code": {"policy": 3, "run": 3, **more}}
        same = {"seed": seed, "model": {"name": "x", "chat": True}}
        write_run(tmp_path, f"taught{seed}", RIGHT, ["cat"], origin=made, metrics=spent, **same)
        write_run(tmp_path, f"asked{seed}", RIGHT, ["cat"], origin=origin(), method={"name": "few_shot"}, **same)
    assert set(rows(report(tmp_path))) == {"stv version=1", "stv version=2", "few_shot"}


def test_two_checkpoints_behind_one_name_are_two_rows(tmp_path, capsys):
    for i, found in enumerate(("aaa", "bbb")):
        write_run(tmp_path, found, [RIGHT, WRONG][i], ["cat"], origin=origin(model=found), model={"name": "x"}, seed=i)
    assert rows(report(tmp_path)) == {"stv model=x@bbb": "0.000", "stv model=x@aaa": "1.000"}
    assert "Runs of several checkpoints behind one name are rows of their own: model=aaa, model=bbb." in notes(capsys)


def test_methods_on_two_models_name_them(tmp_path):
    write_run(tmp_path, "a", RIGHT, ["cat"], model={"name": "x"})
    write_run(tmp_path, "b", WRONG, ["cat"], model={"name": "y"}, method=MTV)
    assert set(rows(report(tmp_path))) == {"stv model=x", "mtv model=y"}


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"dataset": HUB}, {"dataset": HUB | {"root": "owner/b"}}, ["root=owner/a", "root=owner/b"]),
        ({"dataset": HUB}, {"dataset": HUB | {"eval_split": "dev"}}, ["", "eval_split=dev"]),
        ({"dataset": HUB | {"eval": 2}}, {"dataset": HUB | {"eval": 3}}, ["eval=2", "eval=3"]),
        ({"dataset": HUB | {"metric": "choice"}}, {"dataset": HUB | {"metric": "m"}}, ["metric=choice", "metric=m"]),
        (
            {"dataset": HUB | {"fields": {"answer": "x"}}},
            {"dataset": HUB | {"fields": {"answer": "y"}}},
            ["fields.answer=x", "fields.answer=y"],
        ),
        (
            {"dataset": HUB, "origin": origin(data="aa")},
            {"dataset": HUB, "origin": origin(data="bb")},
            ["data=aa", "data=bb"],
        ),
    ],
)
def test_tasks_that_share_a_name_are_told_apart_by_what_differs(tmp_path, capsys, first, second, told):
    write_run(tmp_path, "a", RIGHT, ["cat"], **first)
    write_run(tmp_path, "b", WRONG, ["cat"], **second, method=MTV)
    folder = report(tmp_path)
    labels = [f"hub/default {difference}".strip() for difference in told]
    assert tasks(folder) == labels
    printed = notes(capsys)
    assert f"2 tasks have the name hub/default and are kept apart: {', '.join(labels)}." in printed
    assert "rows cannot be compared: mtv lacks" in printed
    assert pd.read_csv(folder / "paired.csv")["items"].tolist() == [0]


def test_what_was_learned_from_is_another_row_of_the_same_task(tmp_path):
    """Prompting has learned from nothing, and is compared with both."""
    own = {"fit": {"root": "a"}, "dataset": {"fields": {}}}
    for name, learned in (("one", "aa"), ("two", "bb")):
        write_run(tmp_path, name, RIGHT, ["cat"], origin=origin() | {"learned_from": learned}, **own)
    write_run(tmp_path, "few", RIGHT, ["cat"], origin=origin(), method={"name": "few_shot"}, **own)
    folder = report(tmp_path)
    assert tasks(folder) == ["toy/a"]
    labels = set(pd.read_csv(folder / "table.csv")["method"])
    assert labels == {"few_shot", "stv learned_from=aa", "stv learned_from=bb"}


def test_the_same_ids_with_other_questions_are_another_task(tmp_path):
    write_run(tmp_path, "a", RIGHT, ["cat"])
    write_run(tmp_path, "b", RIGHT, ["cat"], question="What?", method=MTV)
    assert [task.partition("=")[0] for task in tasks(report(tmp_path))] == ["toy/a items", "toy/a items"]


@pytest.mark.parametrize(
    "key", ["support", "validation", "label_noise", "max_new_tokens", "streaming", "template.query"]
)
def test_how_a_method_was_fit_is_another_row_on_the_same_task(tmp_path, key):
    section, _, rest = key.partition(".")
    for i in (1, 2):
        write_run(tmp_path, str(i), RIGHT, ["cat"], dataset={section: {rest: i} if rest else i}, seed=i)
    folder = report(tmp_path)
    assert set(rows(folder)) == {f"stv {key.rpartition('.')[2]}={i}" for i in (1, 2)}
    assert tasks(folder) == ["toy/a"]


def test_settings_that_come_with_a_benchmark_split_no_row_and_are_said(tmp_path, capsys):
    for name, support in (("vizwiz", 200), ("dtd", 4000)):
        write_run(tmp_path, name, RIGHT, ["cat"], dataset={"name": name, "support": support})
    assert rows(report(tmp_path)) == {"stv": "1.000"}
    assert "Benchmarks come with a dataset.support of their own: 4000 for dtd, 200 for vizwiz." in notes(capsys)


def test_wrong_labels_and_sources_that_come_with_a_benchmark_split_no_row(tmp_path, capsys):
    """Each kind of task has its own; what asks without demonstrations has no source anywhere."""
    source = {"family": "plain"}
    for name, noise in (("clean", 0.0), ("noisy", 0.3), ("shifted", 0.0)):
        data = {"name": name, "label_noise": noise}
        learned = {"scan": {"pairs": 2}} | ({"fit": source} if name == "shifted" else {})
        write_run(tmp_path, f"stv-{name}", RIGHT, ["cat"], dataset=data, **learned)
        write_run(tmp_path, f"zero-{name}", RIGHT, ["cat"], dataset=data, method={"name": "zero_shot", "shots": 0})
    assert set(rows(report(tmp_path))) == {"stv", "zero_shot"}
    said = notes(capsys)
    assert (
        "Benchmarks come with a dataset.label_noise of their own: 0.0 for clean, 0.3 for noisy, 0.0 for shifted."
        in said
    )
    assert "Benchmarks come with a fit.family of their own: plain for shifted." in said


def test_two_sources_on_one_benchmark_are_two_rows(tmp_path):
    for i, source in enumerate(({}, {"fit": {"task": "b"}})):
        write_run(tmp_path, str(i), RIGHT, ["cat"], scan={"pairs": 2}, **source)
    assert set(rows(report(tmp_path))) == {"stv", "stv fit.task=b"}


def test_a_setting_of_one_name_in_two_sections_is_written_with_its_section(tmp_path):
    for shots, pairs in ((1, 2), (2, 1)):
        write_run(tmp_path, str(shots), RIGHT, ["cat"], method={"shots": shots}, scan={"shots": pairs})
    assert set(rows(report(tmp_path))) == {
        f"stv method.shots={shots} scan.shots={pairs}" for shots, pairs in ((1, 2), (2, 1))
    }


def test_the_number_1_the_text_1_and_nothing_are_three_values(tmp_path):
    for i, value in enumerate((1, "1", None, True, "True")):
        write_run(tmp_path, str(i), RIGHT, ["cat"], method={"x": value})
    write_run(tmp_path, "without", RIGHT, ["cat"])
    found = {"stv x=1", 'stv x="1"', "stv x=None", "stv x=True", 'stv x="True"', "stv"}
    assert set(rows(report(tmp_path))) == found


def test_two_runs_that_nothing_tells_apart_are_never_averaged(tmp_path, capsys):
    write_run(tmp_path, "one", RIGHT, ["cat"])
    write_run(tmp_path, "two", WRONG, ["cat"])
    assert rows(report(tmp_path)) == {"stv run=one": "1.000", "stv run=two": "0.000"}
    assert "Runs with the same settings, task and seed are rows of their own: stv run=one, stv run=two." in notes(
        capsys
    )


def on_tasks(outputs: Path, runs: dict[str, dict[str, list[str]]], seed: int = 0) -> None:
    for method, by_task in runs.items():
        for task, said in by_task.items():
            name = f"{method}-{task}-{seed}"
            write_run(outputs, name, said, ["cat"], seed=seed, method={"name": method}, dataset={"task": task})


def test_methods_are_compared_on_the_tasks_that_all_have_run_on(tmp_path, capsys):
    on_tasks(tmp_path, {"stv": {"a": WRONG, "b": RIGHT, "c": RIGHT}, "mtv": {"a": RIGHT, "b": RIGHT}})
    folder = report(tmp_path)
    assert rows(folder) == {"stv": "0.500", "mtv": "1.000"}
    assert pd.read_csv(folder / "table.csv")["tasks"].tolist() == [2, 2]
    assert pd.read_csv(folder / "paired.csv")["items"].tolist() == [4]
    assert tasks(folder) == ["toy/a", "toy/b", "toy/c"], "the table by task has them all"
    expected = "Methods are compared on the 2 tasks that all have run on, of 3: mtv lacks toy/c."
    assert expected in notes(capsys)


def test_a_seed_on_some_of_the_tasks_is_no_seed_of_the_mean(tmp_path, capsys):
    on_tasks(tmp_path, {"stv": {"a": WRONG, "b": RIGHT}})
    on_tasks(tmp_path, {"stv": {"b": RIGHT}}, seed=1)
    assert rows(report(tmp_path)) == {"stv": "0.500"}
    assert "stv has not run on all of its tasks with seed 1: it is compared without." in notes(capsys)


def test_methods_with_different_seeds_are_noted(tmp_path, capsys):
    on_tasks(tmp_path, {"stv": {"a": WRONG}, "mtv": {"a": RIGHT}})
    on_tasks(tmp_path, {"stv": {"a": RIGHT}}, seed=1)
    report(tmp_path)
    assert "Methods have run with different seeds: 0 of mtv; 0, 1 of stv." in notes(capsys)


def test_what_was_scored_by_two_metrics_is_one_task_once_it_is_rescored(tmp_path):
    write_run(tmp_path, "a", RIGHT, ["cat"], dataset={"metric": "exact_match"})
    write_run(tmp_path, "b", WRONG, ["cat"], dataset={"metric": "likelihood"}, method=MTV)
    assert len(tasks(report(tmp_path))) == 2
    folder = report(tmp_path, question=Question(metric="exact_match"))
    assert tasks(folder) == ["toy/a"]
    assert set(rows(folder)) == {"stv metric=exact_match", "mtv metric=likelihood"}
