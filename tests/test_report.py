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

from stv_exp.artefacts.chosen import Chosen
from stv_exp.config import BankConfig, setting
from stv_exp.diagnostics import diagnose, discretisation_gap
from stv_exp.errors import StvError
from stv_exp.identity import settings
from stv_exp.pipeline import run
from stv_exp.report.__main__ import main
from stv_exp.report.collapse import k_collapse
from stv_exp.report.comparison import report
from stv_exp.report.paired import paired
from stv_exp.report.question import Question
from stv_exp.report.runs import load
from stv_exp.report.tables import by_task, headline
from stv_exp.statistics import interval
from tests.conftest import with_method
from tests.report_runs import write_run


def table(**columns: list) -> pd.DataFrame:
    n = len(columns["accuracy"])
    names = columns.get("label", ["stv"] * n)
    rest = {"label": names, "variant": names, "method": [name.split()[0] for name in names]}
    numbers = {
        "seconds.total": [1.0] * n,
        "location_search_seconds": [0.5] * n,
        "candidate_evaluations": [8] * n,
        "search_token_forwards": [9.0] * n,
        "queries_to_pay": [float("nan")] * n,
    }
    return pd.DataFrame({**rest, "model": ["x"] * n, "task": ["a"] * n, "seed": [0] * n, **numbers, **columns})


def items(runs: pd.DataFrame, *scores: list[float]) -> pd.DataFrame:
    """The same scores of items 0, 1, ... for every run, or one list a run."""
    lists = scores if len(scores) == len(runs) else scores * len(runs)
    rows = zip(runs[["label", "task", "seed"]].values.tolist(), lists, strict=True)
    found = [[*run, str(i), score] for run, own in rows for i, score in enumerate(own)]
    return pd.DataFrame(found, columns=["label", "task", "seed", "id", "correct"])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_accuracy_is_the_mean_over_tasks_then_mean_and_deviation_over_seeds():
    runs = table(accuracy=[0.2, 0.4, 0.6, 1.0], task=["a", "b", "a", "b"], seed=[0, 0, 1, 1])
    means = [fmean([0.2, 0.4]), fmean([0.6, 1.0])]
    row = headline(runs, items(runs, [1, 0]), "").rows[0]
    assert row[:2] + row[3:5] == ["stv", f"{fmean(means):.3f} ± {stdev(means):.3f}", "2", "2"]
    assert [row[1] for row in by_task(runs).rows] == [
        f"{fmean([0.2, 0.6]):.3f} ± {stdev([0.2, 0.6]):.3f}",
        f"{fmean([0.4, 1.0]):.3f} ± {stdev([0.4, 1.0]):.3f}",
    ]


def test_the_interval_is_over_items_and_repeating_them_makes_it_no_narrower():
    once, twice = table(accuracy=[0.5]), table(accuracy=[0.5, 0.5], seed=[0, 1])
    scores = [1.0, 0.0] * 20
    low, high = interval(scores)
    assert headline(once, items(once, scores), "").rows[0][2] == f"[{low:.3f}, {high:.3f}]"
    assert headline(twice, items(twice, scores), "").rows[0][2] == f"[{low:.3f}, {high:.3f}]"


def test_methods_are_compared_on_the_items_that_both_answered():
    runs = table(accuracy=[0.9, 0.5], label=["stv", "zero_shot"])
    scores = items(runs, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0])  # the last item is stv's alone
    ((label, against, n, difference, _, p, _),) = paired(runs, scores)[0].rows
    assert (label, against, n, difference, p) == ("zero_shot", "stv", "9", "-0.889", f"{2 / 2**8:.3f}")
    ((label, against, n, difference, _, p, _),) = paired(runs, scores, "zero_shot")[0].rows
    assert (label, against, n, difference, p) == ("stv", "zero_shot", "9", "+0.889", f"{2 / 2**8:.3f}")


def test_a_method_is_compared_with_prompting_under_its_own_conditions():
    """Prompting with as many demonstrations and other labels is other prompting, whatever its folder is called."""
    names = ["stv label_noise=0.3", "few_shot shots=8 label_noise=0.0", "few_shot shots=8 label_noise=0.3", "stv"]
    names += ["few_shot shots=4 label_noise=0.0"]
    noise, shots = [0.3, 0.0, 0.3, 0.0, 0.0], [0, 8, 8, 0, 4]
    runs = table(accuracy=[0.5] * 5, label=names, **{"dataset.label_noise": noise, "method.shots": shots})
    runs["method.where"] = ["all", "none", "none", "all", "none"]
    for order in (runs, runs.iloc[::-1]):
        found = paired(order, items(order, [1, 0]))[0]
        against = {row[0]: row[1] for row in found.rows}
        assert against["stv"] == "few_shot shots=8 label_noise=0.0"
        assert against["stv label_noise=0.3"] == "few_shot shots=8 label_noise=0.3"
        assert against["few_shot shots=4 label_noise=0.0"] == "few_shot shots=8 label_noise=0.0"


def test_methods_without_a_common_item_are_not_compared():
    runs = table(accuracy=[0.9, 0.5], label=["stv", "zero_shot"], task=["a", "b"])
    assert paired(runs, items(runs, [1, 0]))[0].rows == [["zero_shot", "stv", "0", "-", "-", "-", "-"]]


def test_seeds_are_averaged_before_items_are_compared():
    runs = table(accuracy=[0.9, 0.9, 0.5, 0.5], label=["stv", "stv", "none", "none"], seed=[0, 1, 0, 1])
    ((_, _, n, difference, *_),) = paired(runs, items(runs, [1, 1, 1], [1, 0, 1], [0, 0, 0], [1, 0, 0]))[0].rows
    assert (n, difference) == ("3", f"{-(0.5 + 0.5 + 1) / 3:+.3f}")


def test_an_unknown_method_to_compare_with_is_refused_with_the_choices():
    runs = table(accuracy=[0.9, 0.5], label=["stv", "zero_shot"])
    with pytest.raises(StvError, match="--against mtv is none of the methods; choose one of zero_shot, stv"):
        paired(runs, items(runs, [1, 0]), "mtv")


def test_the_comparison_is_printed_and_written_like_the_other_tables(config, tmp_path, capsys):
    run(config, [])
    run(with_method(config, name="zero_shot", where="none", what="none", how="none"), [])
    folder = report(tmp_path / "outputs", question=Question(against="zero_shot"))
    printed = capsys.readouterr().out
    assert "on the same items (against: zero_shot, items: 12)" in printed and "table, tasks, paired" in printed
    for ending in ("md", "csv", "tex"):
        assert "difference" in (folder / f"paired.{ending}").read_text()
    assert pd.read_csv(folder / "paired.csv")["items"].tolist() == [12]


def test_where_the_only_run_is_damaged_it_is_named_before_the_error(config, tmp_path, capsys):
    run(config, [])
    (path,) = (tmp_path / "outputs/runs").glob("*/predictions.jsonl")
    path.write_text("{")
    with pytest.raises(StvError, match="There is no finished run"):
        report(tmp_path / "outputs")
    assert f"{path.parent.name} is damaged (predictions.jsonl has changed" in capsys.readouterr().out


def test_finished_runs_are_rescored_by_another_metric_and_stay_as_they_are(tmp_path, capsys):
    answers = ["cat", "cat", "dog", "dog"]  # one who said cat agrees with 1 of the others: (2 * 1/3 + 2 * 2/3) / 4
    write_run(tmp_path, "a", ["The cat.", "a cat"], answers)
    write_run(tmp_path, "b", ["cow", "dog"], answers, method={"name": "mtv"})
    own = report(tmp_path)
    runs, tables = contents(tmp_path / "runs"), contents(own)
    before = capsys.readouterr().out
    folder = report(tmp_path, question=Question(metric="vqa_accuracy"))
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
    assert report(tmp_path, "s", Question(metric="exact_match")) == tmp_path / "sweeps/s/exact_match"
    assert pd.read_csv(tmp_path / "sweeps/s/exact_match/runs.csv")["accuracy"].tolist() == [1.0]


def test_a_metric_that_does_not_exist_is_refused_with_the_choices(tmp_path):
    write_run(tmp_path, "a", ["cat"], ["cat"])
    with pytest.raises(StvError, match="--metric bleu is unknown; choose one of exact_match, vqa_accuracy, "):
        report(tmp_path, question=Question(metric="bleu"))
    assert not (tmp_path / "report").exists()


def test_answers_that_the_metric_cannot_score_are_named_with_their_run(tmp_path):
    write_run(tmp_path, "good", ["cat"], ["cat", "cat"])
    write_run(tmp_path, "single", ["cat"], ["cat"])
    with pytest.raises(StvError, match=r"Query q0 of the run single cannot be scored: The answers .* are too few"):
        report(tmp_path, question=Question(metric="vqa_accuracy"))


def test_answers_of_runs_that_are_not_asked_for_need_no_score(tmp_path):
    write_run(tmp_path, "good", ["cat"], ["cat", "cat", "cat"])
    write_run(tmp_path, "single", ["cat"], ["cat"], method={"name": "mtv"})
    report(tmp_path, question=Question(metric="vqa_accuracy", where=("method=stv",)))


def sweep(
    outputs: Path, right: dict[tuple[int, int], int], validation: dict[tuple[int, int], float], **rest: Any
) -> None:
    """Runs of stv by (k, m), with so many of four eval queries right and this accuracy on validation."""
    for (k, m), n in right.items():
        name = "-".join(map(str, [k, m, *rest.values()])).translate(str.maketrans("", "", "{}': "))
        said = ["cat"] * n + ["dog"] * (4 - n)
        write_run(outputs, name, said, ["cat"], validation=validation.get((k, m)), method={"k": k, "m": m}, **rest)


def test_the_report_shows_the_runs_chosen_on_validation_whatever_they_do_on_eval(tmp_path, capsys):
    grid = {(8, 1): 4, (8, 2): 3, (16, 1): 2, (16, 2): 1}
    sweep(tmp_path, grid, {(8, 1): 0.1, (8, 2): 0.2, (16, 1): 0.4, (16, 2): 0.3})
    sweep(tmp_path, grid, {(8, 1): 0.1, (8, 2): 0.2, (16, 1): 0.3, (16, 2): 0.4}, seed=1)
    sweep(tmp_path, {(8, 1): 0, (8, 2): 4}, {(8, 1): 0.9, (8, 2): 0.8}, dataset={"task": "b"})
    write_run(
        tmp_path, "zero", ["dog"], ["cat"], method={"name": "zero_shot"}
    )  # nothing to choose, nothing to choose by
    folder = report(tmp_path, question=Question(select=("method.k", "method.m")))
    runs = pd.read_csv(folder / "runs.csv").sort_values(["label", "task", "seed"])
    assert runs["label"].tolist() == ["stv"] * 3 + ["zero_shot"]
    assert runs["accuracy"].tolist() == [0.5, 0.25, 0.0, 0.0]
    assert runs[["method.k", "method.m", "chosen_from"]].values.tolist()[:3] == [[16, 1, 4], [16, 2, 4], [8, 1, 2]]
    assert (folder, len(runs)) == (tmp_path / "report/select-method.k-method.m", 4)
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "note: Chosen on validation accuracy (by dataset.metric), for each task and seed: method.k, method.m;"
        in printed
    )
    assert "stv from 2 to 4 settings, zero_shot from 1 setting." in printed


def test_what_is_not_selected_stays_a_variant(tmp_path):
    sweep(tmp_path, {(8, 1): 1, (16, 1): 2, (8, 2): 3, (16, 2): 4}, {(8, 1): 0.9, (16, 1): 0, (8, 2): 0, (16, 2): 0.9})
    runs = load(tmp_path, question=Question(select=("method.k",))).runs
    assert dict(runs[["label", "accuracy"]].values) == {"stv m=1": 0.25, "stv m=2": 1.0}


def test_a_tie_on_validation_goes_to_the_first_setting_by_size(tmp_path):
    sweep(tmp_path, {(16, 1): 1, (8, 2): 2, (8, 10): 3}, dict.fromkeys([(16, 1), (8, 2), (8, 10)], 0.5))
    assert load(tmp_path, question=Question(select=("method.k", "method.m"))).runs["accuracy"].tolist() == [0.5]
    assert load(tmp_path, question=Question(select=("method.m", "method.k"))).runs["accuracy"].tolist() == [0.25]


@pytest.mark.parametrize("key", ["method.x", "policy.steps", "bank.k", "seed", "dataset.task", ""])
def test_a_key_that_no_run_varies_is_refused_with_those_that_vary(tmp_path, key):
    sweep(tmp_path, {(8, 1): 1, (16, 2): 2}, {}, policy={"steps": 5})
    with pytest.raises(
        StvError, match=rf"--select {key} is no setting that varies .*choose from method\.k, method\.m\.$"
    ):
        load(tmp_path, question=Question(select=("method.k", key)))


def test_selecting_where_nothing_varies_is_refused(tmp_path):
    sweep(tmp_path, {(8, 1): 1}, {})
    with pytest.raises(StvError, match=r"--select method\.k .*; none does, so leave it out"):
        load(tmp_path, question=Question(select=("method.k",)))


def test_runs_without_a_validation_score_cannot_be_chosen_from(tmp_path):
    sweep(tmp_path, {(8, 1): 1, (16, 1): 2}, {(8, 1): 0.9})
    with pytest.raises(StvError, match=r"The run 16-1 has no validation accuracy .*dataset\.validation=N"):
        report(tmp_path, question=Question(select=("method.k",)))


def test_a_selection_is_rescored_from_the_command_line(tmp_path, monkeypatch, capsys):
    sweep(tmp_path, {(8, 1): 4, (16, 1): 2}, {(8, 1): 0.1, (16, 1): 0.2})
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path), "--select", "method.k", "--metric", "exact_match"])
    assert main() == 0
    found = pd.read_csv(tmp_path / "report/select-method.k/exact_match/table.csv")
    assert found[["method", "accuracy"]].values.tolist() == [["stv", 0.5]]
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path), "--select", "method.m"])
    assert main() == 1
    assert capsys.readouterr().err.startswith("Error: --select method.m is no setting that varies")


@pytest.mark.parametrize("where", ["sensitivity", "none"])
def test_every_setting_that_a_run_records_has_its_key_of_the_command_line(config, where):
    prompting = {"what": "none", "how": "none", "shots": 2} if where == "none" else {}
    for stage, own in settings(with_method(config, where=where, **prompting)).items():
        for name in own:
            setting(config, f"{stage}.{name}")


def test_falling_accuracy_over_k_is_said_and_rising_is_not():
    falling = table(accuracy=[0.9, 0.5], label=["stv k=8", "stv k=24"])
    (sentence,) = k_collapse(falling)
    assert "drops as K grows (0.90 at k=8, 0.50 at k=24)" in sentence
    assert k_collapse(table(accuracy=[0.5, 0.9], label=["stv k=8", "stv k=24"])) == []


def test_variants_are_named_by_what_varies_and_by_nothing_else(config):
    for k, identity in ((3, False), (4, False), (4, True)):
        run(replace(with_method(config, k=k), bank=BankConfig(identity)), [])
    run(with_method(config, name="zero_shot", where="none", what="none", how="none"), [])
    labels = set(load(Path(config.outputs)).runs["label"])
    assert labels == {"stv k=3 identity=False", "stv k=4 identity=False", "stv k=4 identity=True", "zero_shot"}


def test_what_is_only_read_with_another_setting_tells_no_rows_apart(tmp_path):
    for i, shots in enumerate((0, 1, 4)):
        chosen = {"demonstrations": {"choice": "random"}} if shots else {}
        write_run(tmp_path, f"a{i}", ["x"], ["x"], method={"name": "mtv", "shots": shots}, **chosen)
    write_run(tmp_path, "b", ["x"], ["x"], method={"name": "stv"}, demonstrations={"choice": "random"})
    write_run(tmp_path, "c", ["x"], ["x"], method={"name": "stv"})
    labels = load(tmp_path).runs.set_index("run")["label"]
    assert labels[["a0", "a1", "a2"]].tolist() == ["mtv shots=0", "mtv shots=1", "mtv shots=4"]
    assert labels["b"] == "stv choice=random" and labels["c"] == "stv", "here it is all that tells them apart"


def test_numbers_are_written_as_they_are_shown(tmp_path):
    write_run(tmp_path, "right", ["cat", "cat"], ["cat"])
    folder = report(tmp_path)
    for ending in ("md", "csv", "tex"):
        assert "1.000" in (folder / f"table.{ending}").read_text()


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
    assert len(load(tmp_path / "outputs").runs) == 1


def chosen(reward: list[float], reference: list[float], kept: int = 2) -> Chosen:
    history = {"reward": reward, "reward_random": reference}
    locations, vectors = torch.zeros(kept, 2, dtype=torch.long), torch.zeros(kept, 3)
    return Chosen(torch.zeros(2, dtype=torch.long), locations, vectors, torch.ones(2), history, 8, "")


def test_a_policy_no_better_than_chance_is_said():
    noise = [-1.0, -1.2, -0.9, -1.1] * 5
    (sentence,) = diagnose(chosen(noise, noise[::-1]))
    assert "no better than that of random candidates" in sentence
    assert diagnose(chosen([r + 0.5 for r in noise], noise[:1] * 20)) == []


def test_a_look_that_curves_repeat_is_one_measurement():
    """Of four looks that go up and down nobody can tell; repeated 30 times each they are still four."""
    gains = [gain for gain in (0.4, -0.2, 0.5, -0.3) for _ in range(30)]
    (sentence,) = diagnose(chosen([gain - 1 for gain in gains], [-1.0] * 120))
    assert "the last 4 times that it was measured" in sentence
    assert diagnose(chosen([3.0, 4.0, 5.0, 5.0, 6.0, 6.0], [-1.0] * 6)) == [], "each far above chance"


def test_what_a_soft_search_loses_when_it_is_made_discrete_is_reported():
    soft = chosen([-3.0, -3.0, -2.0, -2.0, -2.5, -2.5, -2.0, -2.0], [-3.0] * 8)  # looked at every other step
    soft.history["loss"] = [1.5] * 6 + [0.5, 9.0]
    assert discretisation_gap(soft) == 1.5, "of the steps that looked"
    assert "worse than the forward that found it (by 1.50 nats" in diagnose(soft)[0]
    assert discretisation_gap(chosen([-2.0] * 8, [-3.0] * 8)) is None


def test_a_vector_that_inserts_nothing_is_said():
    assert "equals no insertion" in diagnose(chosen([], [], kept=0))[0]
    assert diagnose(None) == []


def test_json_of_a_run_is_plain(config, tmp_path):
    run(config, [])
    texts = [path.read_text() for path in (tmp_path / "outputs/runs").glob("*/*.json")]
    assert len(texts) == 3
    for text in texts:
        json.loads(text, parse_constant=pytest.fail)  # called for NaN and infinity
