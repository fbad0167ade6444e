"""Text that others have chosen is shown as it is: no markup, no command to a terminal, no formula, no table cell."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from stv_exp.disk.files import write_json
from stv_exp.errors import printable
from stv_exp.report.comparison import report
from stv_exp.report.text import markdown, shown
from tests.report_runs import write_run

TEXTS = [
    *("[/INST]", "[bold][/] [red]x[/red]", "[link=http://x]y", "\\[/b]", "[[[ :smile:"),
    *("\x1b[31mred \x1b]0;title\x07 \x9b2J", "two\nlines\ttab \rback", "\u202eright", "\ud800", "\0"),
    *("a|b <image> `code`", "$x$ $", "$\\frac$", "a_b^c 100%&#~{}\\", "# head", "猫 🐈 é", "x" * 500, " "),
]


def everything(outputs: Path, text: str) -> None:
    """Runs that hold the text wherever others choose one, one that is no part of the table, and a curve and a study."""
    named = {"dataset": {"name": text, "task": text}, "method": {"name": text, "x": [text]}}
    for i, changes in enumerate(
        (named, {"method": {"x": text}}, {"template": {"query": text}}, {"dataset": {"root": text}})
    ):
        folder = write_run(outputs, f"run{i}", ["cat", text], [text], question=text, origin={"data": text}, **changes)
        (folder / "history.csv").write_text("reward,reward_random\n1,2\n3,4\n")
    write_json(write_run(outputs, "failed", ["cat"], ["cat"]) / "status.json", {"state": "failed", "error": text})
    write_json(write_run(outputs, "cut", ["cat"], ["cat"]) / "status.json", {"state": "interrupted", "error": text})


@pytest.mark.parametrize("text", [*TEXTS[::2], *(pytest.param(text, marks=pytest.mark.slow) for text in TEXTS[1::2])])
def test_any_text_is_printed_and_written_and_costs_no_report(tmp_path, capsys, text):
    everything(tmp_path, text)
    folder = report(tmp_path)
    printed = capsys.readouterr().out
    assert not {c for c in printed if not c.isprintable()} - {"\n"}
    assert printable(text).split()[:1] == [] or printable(text)[:10].split()[0] in printed
    for table in ("table", "tasks", "paired"):
        rows = len(pd.read_csv(folder / f"{table}.csv"))
        lines = (folder / f"{table}.md").read_text().rstrip("\n").split("\n")
        assert len(lines) == rows + 2
        bars = {line.replace("\\\\", "").replace("\\|", "").count("|") for line in lines}
        assert len(bars) == 1, "a bar in a cell is no end of it"
    assert {path.name for path in folder.glob("*.png")} == {"accuracy.png", "rewards.png"}


@pytest.mark.parametrize("name", ["[/INST]", "[bold]x", "\x1b[31mred", "two\nlines", "a b", "$x$ $", "é", "-s"])
def test_a_study_may_have_any_name(tmp_path, capsys, name):
    write_run(tmp_path, "run", ["cat"], ["cat"])
    folder = tmp_path / "sweeps" / name
    folder.mkdir(parents=True)
    (folder / "run.run").touch()
    assert report(tmp_path, name) == folder
    printed = capsys.readouterr().out
    assert printed.count(printable(name)) >= 2 and "\x1b" not in printed, "in the title and in where it was written"


def test_what_latex_reads_as_commands_is_escaped(tmp_path):
    write_run(tmp_path, "run", ["cat"], ["cat"], method={"name": "50%_a&b#{$}"})
    assert r"50\%\_a\&b\#\{\$\}" in (report(tmp_path) / "table.tex").read_text()


def test_two_values_never_look_the_same():
    values = [1, 1.5, "1", "1.5", None, "None", True, "True", "", " ", "a b", '"a b"', ["a"], '["a"]', "\n", "\\n", "é"]
    values += ["x" * 500, "x" * 499, "nan", float("nan")]
    assert len({shown(value) for value in values}) == len(values)


def test_markdown_keeps_numbers_and_intervals_as_they_are():
    assert markdown("[0.207, 1.000]") == "[0.207, 1.000]" and markdown("< 0.001") == "< 0.001"
    assert markdown("a|b <image> [x](y)") == r"a\|b \<image> [x]\(y)"
