"""A comparison over models, datasets and settings: each an axis of its own, in 80 columns, with numbers whole."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from itertools import product
from math import ceil
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd
import pytest

import stv_exp
from stv_exp.report.__main__ import main
from stv_exp.report.cells import plain
from stv_exp.report.paired import paired
from stv_exp.report.pay import is_few_shot, queries_to_pay
from stv_exp.report.runs import load
from stv_exp.statistics import holm
from tests.report_runs import write_run

MODELS = ("owner/a-model-with-quite-a-long-name-2B-Instruct", "owner/small")
DATASETS = ("vizwiz", "flowers", "cub")
QUERIES = 20
K = (16, 4, 24, 8)  # as text they are in another order than by size


def right(method: str, k: int, model: str, dataset: str, seed: int) -> int:
    """How many of the queries a run gets right: no two of its arguments may be mixed up."""
    place = MODELS.index(model) + 2 * DATASETS.index(dataset) + seed
    return 4 + K.index(k) + place if method == "stv" else 12 + place


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Two models, three datasets, two seeds, few-shot prompting and a search at four K: 60 runs."""
    folder = tmp_path_factory.mktemp("sixty") / "outputs"
    for i, (model, dataset, seed, k) in enumerate(product(MODELS, DATASETS, (0, 1), (0, *K))):
        method = "stv" if k else "few_shot"
        n = right(method, k, model, dataset, seed)
        own = {"name": method, "where": "sensitivity", "k": k, "m": 4} if k else {"name": method, "where": "none"}
        stages = {"scan": 3000, "bank": 0, "policy": 600 * k, "evaluation": 40} if k else {"evaluation": 1000}
        costs = {"token_forwards": stages, "seconds": dict.fromkeys(stages, 1.0) | {"total": float(len(stages))}}
        write_run(
            folder,
            f"run{i}",
            ["cat"] * n + ["dog"] * (QUERIES - n),
            ["cat"],
            seed=seed,
            metrics=costs | {"peak_memory_bytes": 2_000_000},
            method=own | {"shots": 0 if k else 8},
            model={"name": model},
            dataset={"name": dataset, "task": "all"},
        )
    return folder


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(outputs: Path, *words: str) -> list[str]:
    """What the command prints on a terminal of 80 columns."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(Terminal()) as terminal:
        patch.setenv("COLUMNS", "80")
        patch.setenv("TERM", "dumb")  # no colours
        patch.setattr("sys.argv", ["report", str(outputs), *words])
        assert main() == 0
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    return lines


@pytest.fixture(scope="module")
def usual(outputs) -> list[str]:
    """What is printed without options; the tables are written."""
    return shown(outputs)


def grids(lines: Sequence[str]) -> list[list[list[str]]]:
    """The cells of each table, row by row; what has no row of lines of its own is no table."""
    found: list[list[list[str]]] = []
    for line in lines:
        if line.startswith("┏"):
            found.append([])
        if line.startswith("│"):
            found[-1].append([cell.strip() for cell in line.strip("│").split("│")])
    return found


def accuracy(method: str, k: int, model: str, datasets: Sequence[str] = DATASETS) -> str:
    """Mean and deviation over seeds of the mean over datasets."""
    means = [fmean(right(method, k, model, dataset, seed) / QUERIES for dataset in datasets) for seed in (0, 1)]
    return f"{fmean(means):.3f} ± {stdev(means):.3f}"


def test_the_frames_have_every_setting_number_and_item(outputs):
    runs, items = stv_exp.runs(outputs), stv_exp.predictions(outputs)
    assert len(runs) == 60 and len(items) == 60 * QUERIES
    made = runs[["method", "method.k", "model.name", "dataset.name", "seed"]].values.tolist()
    assert runs["accuracy"].tolist() == [right(*own) / QUERIES for own in made]
    assert items.groupby("run")["correct"].mean().to_dict() == runs.set_index("run")["accuracy"].to_dict()
    assert set(map(str, runs["method.k"])) == {"4", "8", "16", "24", "<NA>"}, "whole numbers stay whole"
    assert items.columns.tolist()[:5] == ["run", "label", "task", "seed", "id"]
    assert {"seconds.scan", "token_forwards.policy", "accuracy_low", "bank", "origin.data"} <= set(runs.columns)


def test_what_a_search_replaces_is_the_best_prompt_and_of_equally_good_ones_the_shortest():
    """More demonstrations than a model can use would make anything pay."""
    rows = [
        ("few_shot", 4, 0.9, 100.0),
        ("few_shot", 8, 0.9, 200.0),
        ("few_shot", 56, 0.5, 900.0),
        ("stv", 0, 1.0, 10.0),
    ]
    runs = pd.DataFrame(rows, columns=["method", "method.shots", "accuracy", "token_forwards.evaluation"])
    runs = runs.assign(model="m", task="t", seed=0, n=1, search_token_forwards=[0.0, 0.0, 0.0, 900.0])
    assert queries_to_pay(runs).tolist()[3] == 10


def test_prompting_is_without_an_edit_and_asked_alike():
    """LoRA beside demonstrations is no prompting, and of prompts with other labels or templates none is replaced."""
    rows = [
        ("few_shot", "none", 4, 0.0, 100.0),
        ("few_shot", "none", 4, 0.3, 300.0),
        ("lora", "lora", 4, 0.0, 900.0),
        ("prompted", None, 2, 0.7, 50.0),  # by 0.2, which recorded no edit
        ("stv", "none", 0, 0.0, 10.0),
        ("stv", "none", 0, 0.3, 10.0),
        ("stv", "none", 0, 0.5, 10.0),
    ]
    names = ["method", "method.edit", "method.shots", "dataset.label_noise", "token_forwards.evaluation"]
    runs = pd.DataFrame(rows, columns=names).assign(model="m", task="t", seed=0, n=1, accuracy=0.5)
    runs["method.where"] = ["none"] * 4 + ["all"] * 3
    runs = runs.assign(search_token_forwards=[0.0] * 4 + [900.0] * 3)
    assert is_few_shot(runs).tolist() == [True, True, False, True, False, False, False]
    assert queries_to_pay(runs).fillna(0).tolist()[4:] == [10, 4, 0]


def test_a_search_has_paid_once_its_queries_have_saved_what_it_cost(outputs):
    runs = stv_exp.runs(outputs)
    saved = (1000 - 40) / QUERIES
    for k, own in runs[runs["method"] == "stv"].groupby("method.k"):
        assert set(own["queries_to_pay"]) == {ceil((3000 + 600 * k) / saved)}
    assert runs.loc[runs["method"] == "few_shot", "queries_to_pay"].isna().all()


def test_models_are_blocks_and_datasets_are_columns(usual):
    titles = [line for line in usual if line[:1].isalnum() or line.startswith("/")]
    assert sum("model owner/small" in title for title in titles) == 3, "the headline, datasets and pairs"
    found = grids(usual)
    assert all(cell for grid in found for row in grid for cell in row), "no cell is empty"
    for model, headline, datasets in zip(MODELS, found[0::2], found[4:6], strict=False):
        by_method = {row[0]: row[1] for row in headline}
        assert by_method == {f"stv k={k}": accuracy("stv", k, model) for k in K} | {
            "few_shot": accuracy("few_shot", 0, model)
        }
        assert [row[0] for row in datasets] == ["few_shot", *(f"stv k={k}" for k in sorted(K))]
        assert datasets[1][1:] == [accuracy("stv", 4, model, [dataset]) for dataset in sorted(DATASETS)]


def test_methods_are_compared_with_few_shot_prompting_of_their_model_and_p_is_corrected(outputs, usual):
    folder = outputs / "report"
    paired = pd.read_csv(folder / "paired.csv", dtype=str)
    assert set(paired["against"]) == {"few_shot"} and len(paired) == len(MODELS) * len(K)
    assert (paired["p (Holm)"] >= paired["p"].where(paired["p"] != "< 0.001", "0.000")).all()
    lines = shown(outputs, "--against", "stv k=8")
    assert any("(against: stv k=8, items: 60)" in line for line in lines)


def test_the_few_shot_run_with_most_shots_is_the_baseline_and_a_model_without_one_asked_for_is_named(tmp_path):
    for model, names in (("x", ("few_shot 2", "few_shot 8", "stv 0", "mtv 0")), ("y", ("few_shot 2", "stv 0"))):
        for method, shots in map(str.split, names):
            own = {"name": method, "shots": int(shots)}
            write_run(tmp_path, f"{model}{method}{shots}", ["cat"], ["cat"], method=own, model={"name": model})
    loaded = load(tmp_path)
    table, _ = paired(loaded.runs, loaded.predictions)
    assert {tuple(row[:1] + row[2:3]) for row in table.rows} == {("x", "few_shot shots=8"), ("y", "few_shot shots=2")}
    table, (note,) = paired(loaded.runs, loaded.predictions, "mtv")
    assert {row[1] for row in table.rows} == {"mtv"} and "model" not in table.headers
    assert note == "No run of y is one of mtv: its methods are not paired."


def test_axes_are_sorted_as_numbers_and_hold_the_runs_numbers(outputs):
    words = "--rows method.k --columns dataset --where method=stv --by model"
    lines = shown(outputs, *words.split())
    for model, grid in zip(MODELS, grids(lines), strict=True):
        assert grid == [
            [str(k), *(accuracy("stv", k, model, [dataset]) for dataset in sorted(DATASETS))] for k in sorted(K)
        ]
    folder = outputs / "report/where-method=stv"
    written = pd.read_csv(folder / "accuracy-by-model-method.k-dataset.name.csv", dtype=str)
    assert written.columns.tolist() == ["model", "k", *sorted(DATASETS)]
    assert written["k"].tolist() == [str(k) for k in sorted(K)] * 2


def test_what_is_no_axis_keeps_unlike_runs_apart(outputs):
    words = "--rows dataset --where k=4,16 --where model=owner/small"
    (grid,) = grids(shown(outputs, *words.split()))
    assert grid == [
        [f"stv k={k}", dataset, accuracy("stv", k, "owner/small", [dataset])]
        for k in (4, 16)
        for dataset in sorted(DATASETS)
    ]


def test_numbers_are_never_cut_on_a_narrow_terminal(outputs):
    words = "--rows method,k --columns model,dataset,seed --values search_token_forwards"
    found = grids(shown(outputs, *words.split()))
    assert len(found) > 1, "in parts"
    assert all(
        [row[:2] for row in part] == [["few_shot", "-"], *(["stv", str(k)] for k in sorted(K))] for part in found
    )
    assert [row for part in found for row in part[-1][2:]] == ["17400"] * len(MODELS) * len(DATASETS) * 2


def test_every_run_has_its_cost_by_stage(outputs, usual):
    cost = pd.read_csv(outputs / "report/cost.csv", dtype=str)
    own = cost[cost["run"] == "run1"]
    assert own["stage"].tolist() == ["scan", "bank", "policy", "evaluation", "total"]
    assert own["token-forwards"].tolist() == ["3000", "0", "9600", "40", "12640"]
    assert own.iloc[-1][["seconds", "peak memory (MB)", "queries to pay"]].tolist() == ["4.00", "2", "263"]
    assert cost["run"].nunique() == 60


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--rows metod.k", "--rows metod.k is nothing that these runs record; did you mean method.k?"),
        (
            "--columns task --values accurac",
            "--values accurac is no number that these runs record; did you mean accuracy?",
        ),
        ("--values method", "--values method is no number that these runs record; "),
        ("--values validation_accuracy", "--values validation_accuracy is recorded by none of these runs"),
        ("--by name", "--by name may be dataset.name or method.name or model.name; write the one that you mean."),
        ("--where k=5", "--where k=5 leaves no run; method.k is one of 4, 8, 16, 24, -."),
        ("--where k", "--where k has no value; write --where key=value[,value]."),
        ("--against stv", "--against stv may be stv k=4"),
        ("--rows k --against stv", "--against compares the rows of the usual table; leave it out"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(outputs, monkeypatch, capsys, words, sentence):
    monkeypatch.setattr("sys.argv", ["report", str(outputs), *words.split()])
    assert main() == 1
    assert capsys.readouterr().err.startswith(f"Error: {sentence}")


def test_axes_are_over_common_tasks_and_say_so(tmp_path):
    for k, tasks in ((4, "ab"), (8, "a")):
        for task in tasks:
            write_run(
                tmp_path,
                f"{k}{task}",
                ["cat", "cat" if task == "a" else "dog"],
                ["cat"],
                method={"k": k},
                dataset={"task": task},
            )
    lines = shown(tmp_path, "--rows", "k")
    assert grids(lines) == [[["4", "1.000"], ["8", "1.000"]]]
    assert "note: Methods are compared on the task that all have run on, of 2: k=8 lacks" in "\n".join(lines)


def test_no_two_values_of_an_axis_look_the_same():
    values = [8, "8", 8.5, "8.5", 12345678.0, 12345679.0, True, "True", None, "-", "a b", "a"]
    assert len({plain(value) for value in values}) == len(values)
    assert plain(8.0) == plain(8) == "8" and plain(1e-05) == "1e-05"


def test_holm_corrects_the_smallest_p_for_all_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []


def test_reading_runs_imports_nothing_that_computes_and_a_table_alone_nothing_that_draws(outputs):
    code = f"""
import sys
import stv_exp
from stv_exp.report.__main__ import main
drawing, computing = ["matplotlib", "omegaconf"], ["torch", "transformers", "lightning", "hydra"]
for words, heavy in (["--rows", "k"], [*drawing, *computing]), ([], computing):
    sys.argv = ["report", {str(outputs)!r}, *words]
    assert len(stv_exp.runs({str(outputs)!r})) == 60 and main() == 0
    assert not set(heavy) & set(sys.modules), heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
