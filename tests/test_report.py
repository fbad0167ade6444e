"""The report's numbers are the runs' numbers, and its sentences appear when they apply."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd
import pytest
import torch

from stv_exp.config import BankConfig
from stv_exp.diagnostics import diagnose
from stv_exp.errors import StvError
from stv_exp.pipeline import run
from stv_exp.report.comparison import by_task, k_collapse, pairwise, report, summary
from stv_exp.report.runs import load_runs
from stv_exp.stages.policy import Chosen
from stv_exp.statistics import interval
from stv_exp.store import write_json
from tests.conftest import with_method


def table(**columns: list) -> pd.DataFrame:
    n = len(columns["accuracy"])
    rest = {"label": ["stv"] * n, "method": ["stv"] * n, "task": ["a"] * n, "seed": [0] * n}
    numbers = {"seconds": [1.0] * n, "location_search_seconds": [0.5] * n, "candidate_evaluations": [8] * n}
    return pd.DataFrame({**rest, **numbers, **columns})


def items(runs: pd.DataFrame, *scores: list[float]) -> pd.DataFrame:
    """The same scores of items 0, 1, ... for every run, or one list a run."""
    lists = scores if len(scores) == len(runs) else scores * len(runs)
    rows = zip(runs[["label", "task", "seed"]].values.tolist(), lists, strict=True)
    found = [[*run, str(i), score] for run, own in rows for i, score in enumerate(own)]
    return pd.DataFrame(found, columns=["label", "task", "seed", "id", "score"])


def write_run(outputs: Path, name: str, said: list[str], answers: list[str], **changes: Any) -> Path:
    """A finished run's folder, made by hand: what it said to one query a text; `changes` are parts of its settings."""
    folder = outputs / "runs" / name
    folder.mkdir(parents=True)
    settings = {"dataset": {"name": "toy", "task": "a"}, "method": {"name": "stv"}}
    settings |= {stage: settings.get(stage, {}) | own for stage, own in changes.items()}
    lines = [{"id": f"q{i}", "question": "?", "answers": answers, "prediction": text} for i, text in enumerate(said)]
    scored = [line | {"correct": float(line["prediction"] in answers)} for line in lines]
    numbers = {"accuracy": fmean(line["correct"] for line in scored), "n": len(said), "seconds": {"total": 1.0}}
    costs = {"location_search_seconds": 0.5, "candidate_evaluations": 8}
    write_json(folder / "metrics.json", numbers | costs)
    write_json(folder / "manifest.json", {"settings": settings, "seed": 0, "inputs": {}})
    write_json(folder / "status.json", {"state": "done"})
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in scored))
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_accuracy_is_the_mean_over_tasks_then_mean_and_deviation_over_seeds():
    runs = table(accuracy=[0.2, 0.4, 0.6, 1.0], task=["a", "b", "a", "b"], seed=[0, 0, 1, 1])
    means = [fmean([0.2, 0.4]), fmean([0.6, 1.0])]
    row = summary(runs, items(runs, [1, 0]))[0]
    assert row[:2] + row[3:5] == ["stv", f"{fmean(means):.3f} ± {stdev(means):.3f}", "2", "2"]
    assert [row["stv"] for row in by_task(runs)] == [
        f"{fmean([0.2, 0.6]):.3f} ± {stdev([0.2, 0.6]):.3f}",
        f"{fmean([0.4, 1.0]):.3f} ± {stdev([0.4, 1.0]):.3f}",
    ]


def test_the_interval_is_over_items_and_repeating_them_makes_it_no_narrower():
    once, twice = table(accuracy=[0.5]), table(accuracy=[0.5, 0.5], seed=[0, 1])
    scores = [1.0, 0.0] * 20
    low, high = interval(scores)
    assert summary(once, items(once, scores))[0][2] == f"[{low:.3f}, {high:.3f}]"
    assert summary(twice, items(twice, scores))[0][2] == f"[{low:.3f}, {high:.3f}]"


def test_methods_are_compared_on_the_items_that_both_answered():
    runs = table(accuracy=[0.9, 0.5], label=["stv", "zero_shot"])
    scores = items(runs, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0])  # the last item is stv's alone
    ((label, against, n, difference, _, p),) = pairwise(runs, scores)
    assert (label, against, n, difference, p) == ("zero_shot", "stv", "9", "-0.889", f"{2 / 2**8:.3f}")
    ((label, against, n, difference, _, p),) = pairwise(runs, scores, "zero_shot")
    assert (label, against, n, difference, p) == ("stv", "zero_shot", "9", "+0.889", f"{2 / 2**8:.3f}")


def test_methods_without_a_common_item_are_not_compared():
    runs = table(accuracy=[0.9, 0.5], label=["stv", "zero_shot"], task=["a", "b"])
    assert pairwise(runs, items(runs, [1, 0])) == [["zero_shot", "stv", "0", "-", "-", "-"]]


def test_seeds_are_averaged_before_items_are_compared():
    runs = table(accuracy=[0.9, 0.9, 0.5, 0.5], label=["stv", "stv", "none", "none"], seed=[0, 1, 0, 1])
    ((_, _, n, difference, _, _),) = pairwise(runs, items(runs, [1, 1, 1], [1, 0, 1], [0, 0, 0], [1, 0, 0]))
    assert (n, difference) == ("3", f"{-(0.5 + 0.5 + 1) / 3:+.3f}")


def test_an_unknown_method_to_compare_with_is_refused_with_the_choices():
    runs = table(accuracy=[0.9, 0.5], label=["stv", "zero_shot"])
    with pytest.raises(StvError, match="--against mtv is none of the methods; choose one of zero_shot, stv"):
        pairwise(runs, items(runs, [1, 0]), "mtv")


def test_the_comparison_is_printed_and_written_like_the_other_tables(config, tmp_path, capsys):
    run(config, [])
    run(with_method(config, name="zero_shot", where="none", what="none", how="none"), [])
    folder = report(tmp_path / "outputs", against="zero_shot")
    printed = capsys.readouterr().out
    assert "against zero_shot, on the same items" in printed and "table, tasks, paired" in printed
    for ending in ("md", "csv", "tex"):
        assert "difference" in (folder / f"paired.{ending}").read_text()
    assert pd.read_csv(folder / "paired.csv")["items"].tolist() == [12]


def test_a_run_without_its_predictions_is_named(config, tmp_path):
    run(config, [])
    (path,) = (tmp_path / "outputs/runs").glob("*/predictions.jsonl")
    path.write_text("{")
    with pytest.raises(StvError, match=r"predictions\.jsonl cannot be read"):
        report(tmp_path / "outputs")


def test_finished_runs_are_rescored_by_another_metric_and_stay_as_they_are(tmp_path, capsys):
    answers = ["cat", "cat", "dog", "dog"]  # one who said cat agrees with 1 of the others: (2 * 1/3 + 2 * 2/3) / 4
    write_run(tmp_path, "a", ["The cat.", "Cat"], answers)
    write_run(tmp_path, "b", ["cow", "dog"], answers, method={"name": "mtv"})
    own = report(tmp_path)
    runs, tables = contents(tmp_path / "runs"), contents(own)
    before = capsys.readouterr().out
    folder = report(tmp_path, metric="vqa_accuracy")
    printed = capsys.readouterr().out
    assert "rescored by vqa_accuracy" in printed and "rescored" not in before
    assert folder == own / "vqa_accuracy"
    assert contents(tmp_path / "runs") == runs and contents(own).items() >= tables.items()
    table, paired = (pd.read_csv(folder / f"{name}.csv") for name in ("table", "paired"))
    assert dict(table[["method", "accuracy"]].values) == {"stv": 0.5, "mtv": 0.25}
    assert dict(zip(table["method"], table["95%"], strict=True))["stv"] == "[0.500, 0.500]"
    assert pd.read_csv(folder / "tasks.csv").to_dict("records") == [{"task": "toy/a", "mtv": 0.25, "stv": 0.5}]
    assert paired[["method", "against", "difference"]].values.tolist() == [["mtv", "stv", -0.25]]
    assert pd.read_csv(own / "tasks.csv").to_dict("records") == [{"task": "toy/a", "stv": 0.0, "mtv": 0.5}]


def test_a_study_is_rescored_beside_its_own_tables(tmp_path):
    write_run(tmp_path, "a", ["cat."], ["cat"])
    (tmp_path / "sweeps/s").mkdir(parents=True)
    (tmp_path / "sweeps/s/a.run").touch()
    assert report(tmp_path, "s", metric="exact_match") == tmp_path / "sweeps/s/exact_match"
    assert pd.read_csv(tmp_path / "sweeps/s/exact_match/runs.csv")["accuracy"].tolist() == [1.0]


def test_a_metric_that_does_not_exist_is_refused_with_the_choices(tmp_path):
    write_run(tmp_path, "a", ["cat"], ["cat"])
    with pytest.raises(StvError, match="--metric bleu is unknown; choose one of exact_match, vqa_accuracy, "):
        report(tmp_path, metric="bleu")
    assert not (tmp_path / "report").exists()


def test_answers_that_the_metric_cannot_score_are_named_with_their_run(tmp_path):
    write_run(tmp_path, "good", ["cat"], ["cat", "cat"])
    write_run(tmp_path, "single", ["cat"], ["cat"])
    with pytest.raises(StvError, match=r"Query q0 of the run single cannot be scored: The answers .* are too few"):
        report(tmp_path, metric="vqa_accuracy")


def test_falling_accuracy_over_k_is_said_and_rising_is_not():
    falling = table(accuracy=[0.9, 0.5], label=["stv k=8", "stv k=24"])
    (sentence,) = k_collapse(falling)
    assert "drops as K grows (0.90 at k=8, 0.50 at k=24)" in sentence
    assert k_collapse(table(accuracy=[0.5, 0.9], label=["stv k=8", "stv k=24"])) == []


def test_variants_are_named_by_what_varies_and_by_nothing_else(config):
    for k, identity in ((3, False), (4, False), (4, True)):
        run(replace(with_method(config, k=k), bank=BankConfig(identity)), [])
    run(with_method(config, name="zero_shot", where="none", what="none", how="none"), [])
    labels = set(load_runs(Path(config.outputs))["label"])
    assert labels == {"stv k=3 identity=False", "stv k=4 identity=False", "stv k=4 identity=True", "zero_shot"}


def test_the_written_table_is_what_the_metrics_say(config, tmp_path):
    metrics = [run(replace(config, seed=seed), []) for seed in (0, 1)]
    folder = report(tmp_path / "outputs")
    accuracies = [m["accuracy"] for m in metrics]
    assert f"{fmean(accuracies):.3f} ± {stdev(accuracies):.3f}" in (folder / "table.md").read_text()
    assert all((folder / name).stat().st_size > 5000 for name in ("accuracy.png", "rewards.png", "sensitivity.png"))
    assert "\\toprule" in (folder / "table.tex").read_text()


def test_runs_that_failed_are_no_part_of_the_table(config, tmp_path):
    run(config, [])
    with pytest.raises(Exception, match="99"):
        run(with_method(config, k=99), [])
    assert len(load_runs(tmp_path / "outputs")) == 1


def chosen(reward: list[float], reference: list[float], kept: int = 2) -> Chosen:
    history = {"reward": reward, "reward_random": reference}
    locations, vectors = torch.zeros(kept, 2, dtype=torch.long), torch.zeros(kept, 3)
    return Chosen(torch.zeros(2, dtype=torch.long), locations, vectors, torch.ones(2), history, 8, "")


def test_a_policy_no_better_than_chance_is_said():
    noise = [-1.0, -1.2, -0.9, -1.1] * 5
    (sentence,) = diagnose(chosen(noise, noise[::-1]))
    assert "no better than that of random candidates" in sentence
    assert diagnose(chosen([r + 0.5 for r in noise], noise[:1] * 20)) == []


def test_a_vector_that_inserts_nothing_is_said():
    assert "equals no insertion" in diagnose(chosen([], [], kept=0))[0]
    assert diagnose(None) == []


def test_json_of_a_run_is_plain(config, tmp_path):
    run(config, [])
    texts = [path.read_text() for path in (tmp_path / "outputs/runs").glob("*/*.json")]
    assert len(texts) == 3
    for text in texts:
        json.loads(text, parse_constant=pytest.fail)  # called for NaN and infinity
