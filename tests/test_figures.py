"""A study's README shows what its runs have said: figures.yaml names the tables, figures.lock the runs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

import stv_exp
from stv_exp.disk.files import checksum
from stv_exp.disk.study import Entry, Study
from stv_exp.figures import LOCK, README, SPEC, figures, main, with_tables
from stv_exp.report.gallery import PICTURES
from tests.report_study import write_study

ROOT = Path(__file__).parents[1]
STUDIES = sorted(path.parent for path in ROOT.glob("experiments/**/figures.yaml"))
BY_HAND = {
    "paper": "published and reckoned numbers",
    "speed": "figures of a benchmark, those of its bench.json",
}
TASKS = ["easy", "hard"]
ASKED = """
methods:
  groups:
    easy: {study: all, where: [dataset.task=easy, "method=few_shot,mtv"]}
    hard: {study: all, where: [dataset.task=hard, "method=few_shot,mtv"]}
  costs: [hard]
by_k:
  study: all
  where: [method=stv]
  rows: [method.k]
  columns: [dataset.task]
cost:
  study: all
  where: [method=stv]
  rows: [method.k]
  value: search_token_forwards
"""
SHOWN = "# Made\n\n<!-- methods.csv -->\n| old |\n|---|\n\n**Reading.** Nothing.\n\n<!-- by_k.csv -->\n"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("figures") / "outputs"
    write_study(folder, [2, 4], [1], [0, 1], TASKS)
    for run in sorted((folder / "runs").iterdir()):
        Study(folder, "all").add(run.name, Entry())
    return folder


@pytest.fixture
def study(tmp_path) -> Path:
    (tmp_path / SPEC).write_text(ASKED)
    (tmp_path / README).write_text(SHOWN)
    return tmp_path


def drawn(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["figures", *map(str, arguments)])
    return main()


@pytest.mark.parametrize("folder", STUDIES, ids=lambda path: path.name)
def test_every_readme_shows_its_csvs_and_every_csv_is_that_of_its_runs(folder):
    text = (folder / README).read_text(encoding="utf-8")
    lock = yaml.safe_load((folder / LOCK).read_text())
    assert with_tables(text, folder) == text
    assert [Path(name).stem for name in lock] == [*figures(folder)]
    assert {path.name for path in folder.iterdir() if path.suffix == ".csv" or path.name in PICTURES} <= lock.keys()
    for name, own in lock.items():
        shown = f"<!-- {name} -->" if name.endswith(".csv") else f"]({name})"
        assert checksum(folder / name) == own["sha256"] and own["runs"] and shown in text


def test_every_table_of_numbers_has_a_csv():
    for readme in ROOT.glob("experiments/**/README.md"):
        tables = re.findall(r"(?m)^(.*)\n\|.*\n\|[-:|]+\|\n(\|.*)", readme.read_text(encoding="utf-8"))
        by_hand = [row for above, row in tables if not above.startswith("<!-- ") and re.search(r"\| *[.\d]+ ", row)]
        assert not by_hand or readme.parent.name in BY_HAND, by_hand


def test_the_figures_of_the_benchmark_are_those_that_it_has_written():
    measured = json.loads((ROOT / "experiments/speed/bench.json").read_text())
    text = (ROOT / "experiments/speed/README.md").read_text(encoding="utf-8")
    shown = re.findall(r"(?m)^\| `(\w+\.\w+)` \|.*\| (\S+) \|[^|]*\|$", text)
    assert dict(shown) == {name: f"{value:.3g}" for name, value in measured.items() if "." in name}


def test_the_first_page_shows_what_a_study_has_found():
    """Its tables and its picture lie in folders that have a lock."""
    text = (ROOT / README).read_text(encoding="utf-8")
    shown = re.findall(r"<!-- (\S+\.csv) -->|\]\((experiments/\S+\.png)\)", text)
    assert with_tables(text, ROOT) == text and any(table for table, _ in shown)
    for path in (ROOT / (table or picture) for table, picture in shown):
        assert path.name == "page.png" or path.name in yaml.safe_load((path.parent / LOCK).read_text())


def test_the_tables_are_the_means_of_the_runs_that_the_lock_names(monkeypatch, outputs, study):
    assert drawn(monkeypatch, study, outputs) == 0
    runs = stv_exp.runs(outputs)
    table = pd.read_csv(study / "methods.csv").set_index("method")
    for method in ("few_shot", "mtv"):
        for task in TASKS:
            own = runs[(runs["method"] == method) & (runs["dataset.task"] == task)]
            assert table.loc[method, task].startswith(f"{own['accuracy'].mean():.3f} [")
    assert table.loc["mtv", "token-forwards"] == 20000 and table.loc["few_shot", "queries to pay"] == "-"
    by_k = pd.read_csv(study / "by_k.csv")
    assert by_k["k"].tolist() == [2, 4] and by_k.columns.tolist() == ["k", *TASKS]
    cost = pd.read_csv(study / "cost.csv").set_index("k").iloc[:, 0]
    means = runs[runs["method"] == "stv"].groupby("method.k")["search_token_forwards"].mean()
    assert [float(cell.split()[0]) for cell in cost] == pytest.approx(means.tolist(), abs=1)
    lock = yaml.safe_load((study / LOCK).read_text())
    assert set(lock["by_k.csv"]["runs"].split()) == set(runs[runs["method"] == "stv"]["run"])
    assert checksum(study / "by_k.csv") == lock["by_k.csv"]["sha256"]


def test_a_value_may_be_the_end_of_its_key_and_an_unknown_one_is_a_sentence(monkeypatch, outputs, study, capsys):
    asked = (study / SPEC).read_text()
    (study / SPEC).write_text(asked.replace("value: search_token_forwards", "value: token_forwards.policy"))
    assert drawn(monkeypatch, study, outputs) == 0
    (study / SPEC).write_text(asked.replace("value: search_token_forwards", "value: sparkle"))
    assert drawn(monkeypatch, study, outputs) == 1
    assert "sparkle is no number that these runs record" in capsys.readouterr().err


def test_some_figures_are_drawn_and_the_others_stay(monkeypatch, outputs, study, capsys):
    """As where the kept runs of one have no curves any more."""
    assert drawn(monkeypatch, study, outputs) == 0
    lock, by_k = (study / LOCK).read_text(), (study / "by_k.csv").read_bytes()
    (study / SPEC).write_text(
        ASKED.replace("study: all\n  where: [method=stv]\n  rows: [method.k]\n  col", "study: gone\n  col")
    )
    (study / "cost.csv").unlink()
    assert drawn(monkeypatch, study, outputs, "--only", "cost,methods") == 0
    assert (study / LOCK).read_text() == lock and (study / "by_k.csv").read_bytes() == by_k
    assert (study / "cost.csv").is_file() and drawn(monkeypatch, study, outputs) == 1
    assert drawn(monkeypatch, study, outputs, "--only", "by_m") == 1
    assert "--only by_m is not in" in capsys.readouterr().err


def test_the_readme_keeps_its_words_and_a_number_changed_by_hand_is_seen(monkeypatch, outputs, study):
    assert drawn(monkeypatch, study, outputs) == 0
    text = (study / README).read_text()
    assert "| old |" not in text and "\n\n**Reading.** Nothing.\n\n" in text
    assert drawn(monkeypatch, study, outputs) == 0 and (study / README).read_text() == text
    row = next(line for line in text.splitlines() if line.startswith("| mtv"))
    changed = text.replace(row, row.replace("0.", "1.", 1))
    assert with_tables(changed, study) == text != changed


def test_readmes_above_that_show_a_table_by_its_path_are_drawn_too(monkeypatch, outputs, study):
    inner = study / "experiments" / "one"
    inner.mkdir(parents=True)
    for name in (SPEC, README):
        (study / name).rename(inner / name)
    (study / README).write_text("# Above\n\n<!-- experiments/one/methods.csv -->\n| old |\n")
    (inner.parent / README).write_text("# Not shown\n\n<!-- one/other.csv -->\n| old |\n")
    assert drawn(monkeypatch, inner, outputs) == 0
    table = (inner / README).read_text().partition("<!-- methods.csv -->\n")[2].partition("\n\n")[0]
    assert (study / README).read_text() == f"# Above\n\n<!-- experiments/one/methods.csv -->\n{table}\n"
    assert "| old |" in (inner.parent / README).read_text()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"<!-- one/methods.csv -->\n\xff", "README.md is no UTF-8 text; save it as such"),
        (
            b"<!-- one/methods.csv -->\n<!-- two/a.csv -->\n",
            "README.md shows two/a.csv, which no figures.yaml has made",
        ),
    ],
)
def test_a_readme_above_that_cannot_be_drawn_is_a_sentence_and_changes_nothing(
    monkeypatch, capsys, outputs, study, text, sentence
):
    inner = study / "one"
    inner.mkdir()
    for name in (SPEC, README):
        (study / name).rename(inner / name)
    (study / README).write_bytes(text)
    assert drawn(monkeypatch, inner, outputs) == 1
    assert sentence in (said := capsys.readouterr().err) and said.startswith("Error: ") and said.count("\n") == 1
    assert (inner / README).read_text() == SHOWN and not list(study.rglob("*.csv"))


def test_a_folder_without_a_readme_is_left_as_it_is(monkeypatch, capsys, outputs, study):
    (study / README).unlink()
    assert drawn(monkeypatch, study, outputs) == 1
    assert "README.md cannot be written or read (No such file" in capsys.readouterr().err
    assert [path.name for path in study.iterdir()] == [SPEC]


def test_tables_and_pictures_of_a_report_are_drawn_by_their_names(monkeypatch, outputs, study):
    (study / SPEC).write_text(
        "table: {study: all, report: table}\npaired: {study: all, report: paired, against: mtv}\n"
        "accuracy: {study: all, picture: accuracy.png}\n"
    )
    shown = "![Accuracy](accuracy.png)\n\n<!-- table.csv -->\n\n<!-- paired.csv -->\n"
    (study / README).write_text(shown)
    assert drawn(monkeypatch, study, outputs) == 0
    paired = pd.read_csv(study / "paired.csv")
    assert {"accuracy", "95%"} < {*pd.read_csv(study / "table.csv")} and "p" in paired
    assert {*paired["against"]} == {"mtv"}
    assert (study / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert [*yaml.safe_load((study / LOCK).read_text())] == ["table.csv", "paired.csv", "accuracy.png"]


def test_a_table_of_another_study_is_shown_by_its_path(monkeypatch, outputs, study):
    """A page of several studies repeats no run."""
    assert drawn(monkeypatch, study, outputs) == 0
    above = study / "above"
    above.mkdir()
    (above / SPEC).write_text("{}")
    (above / README).write_text("<!-- ../methods.csv -->\n")
    assert drawn(monkeypatch, above, outputs) == 0
    assert (study / "methods.csv").read_text().count("\n") == (above / README).read_text().count("\n|") - 1


def test_costs_may_be_those_of_several_groups(monkeypatch, outputs, study):
    (study / SPEC).write_text(ASKED.replace("[hard]", "[easy, hard]"))
    assert drawn(monkeypatch, study, outputs) == 0
    costs = pd.read_csv(study / "methods.csv").columns[-4:].tolist()
    assert costs == [f"{cost} ({group})" for group in ("easy", "hard") for cost in ("token-forwards", "queries to pay")]


def test_what_a_method_costs_by_stage_is_the_mean_of_its_runs(monkeypatch, outputs, study):
    (study / SPEC).write_text("stages: {study: all, report: stages}\ncost: {study: all, report: cost}\n")
    (study / README).write_text("<!-- stages.csv -->\n")
    assert drawn(monkeypatch, study, outputs) == 0
    stages, runs = (pd.read_csv(study / f"{name}.csv", na_values="-") for name in ("stages", "cost"))
    told = ["seconds", "token-forwards"]
    found, means = (table.groupby(["method", "stage"])[told].mean() for table in (stages, runs))
    assert {*found.index} == {*means.index} and {"scan", "bank", "policy", "evaluation", "total"} == {*stages["stage"]}
    pd.testing.assert_frame_equal(found, means.loc[found.index], atol=0.51, check_dtype=False)


def test_runs_that_are_left_out_are_told(monkeypatch, capsys, outputs, study):
    one = "{study: all, where: [dataset.task=easy, method=mtv]}"
    two = "{study: all, where: ['method=stv,mtv', dataset.task=easy]}"
    (study / SPEC).write_text(f"methods: {{groups: {{one: {one}, two: {two}}}}}")
    (study / README).write_text("<!-- methods.csv -->\n")
    lost = next(path for path in (outputs / "runs").iterdir() if path.name.startswith("mtv-easy"))
    kept = (lost / "metrics.json").read_text()
    (lost / "metrics.json").write_text("{}")
    try:
        assert drawn(monkeypatch, study, outputs) == 0
    finally:
        (lost / "metrics.json").write_text(kept)
    said = capsys.readouterr().out
    assert f"note: methods.csv: Run {lost.name} is damaged" in said
    assert "note: methods.csv: two: Methods have run with different seeds" in said


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (None, "holds no figures.yaml"),
        ("a: {study: all, colour: red}", "figures.yaml cannot be read (a figure of rows and columns reads no colour)"),
        ("a: {study: all, report: paired, rows: [method]}", "(a figure of report reads no rows)"),
        ("a: {study: all, picture: cost.png, costs: all, value: n}", "(a figure of picture reads no costs, value)"),
        ("a: {groups: {one: {study: all}}, where: [seed=0]}", "(a figure of groups reads no where)"),
        ("a: {study: all, against: stv}", "(a figure of rows and columns reads no against)"),
        ("a: [", "figures.yaml cannot be read"),
        ("a: {study: 5}", "figures.yaml cannot be read (study: 5 is no str)"),
        ("a: {study: all, rows: method}", "(rows: method is no list[str])"),
        ("a: {study: all, rows: [5]}", "(rows: [5] is no list[str])"),
        ("a: {study: all, where: method=stv}", "(where: method=stv is no list[str])"),
        ("a: {groups: {b: {study: [all]}}}", "(study: ['all'] is no str)"),
        ("../a: {study: all, rows: [method]}", "(../a is no name of a figure: a name without slashes"),
        ("a: {study: other, rows: [method]}", "other"),
        ("a: {study: all, where: [method=nobody], rows: [method]}", "leaves no run"),
        ("a: {groups: {b: {study: all}}, costs: [c]}", "a has no column c to take costs from; choose from b."),
        ("a: {study: all, heads: heads}", "None of these runs inserts at heads"),
        ("a: {study: all, report: colours}", "a has no table colours; choose from table, tasks, "),
        ("a: {study: all, picture: a.png}", "a has no picture a.png; choose from accuracy.png, "),
        ("a: {rows: [method]}", "a in figures.yaml names no runs"),
        ("methods: {study: all, rows: [method]}", "README.md shows by_k.csv, which no figures.yaml has made"),
        ("a: {study: all, rows: [shade]}", "--rows shade is nothing that these runs record"),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence_and_changes_nothing(monkeypatch, capsys, outputs, study, spec, sentence):
    if spec is None:
        (study / SPEC).unlink()
    else:
        (study / SPEC).write_text(spec)
    assert drawn(monkeypatch, study, outputs) == 1
    assert sentence in (said := capsys.readouterr().err) and said.startswith("Error: ") and said.count("\n") == 1
    assert (study / README).read_text() == SHOWN and not list(study.glob("*.csv"))
