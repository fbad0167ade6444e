"""What there is to choose from can be listed, and the page of settings is what the schema says."""

from __future__ import annotations

from pathlib import Path

import pytest

from stv_exp.listing import KINDS, settings_page
from tests.forked import run

ROOT = Path(__file__).parents[1]


def test_the_page_of_settings_is_made_of_the_schema():
    page = ROOT / "docs/settings.md"
    assert page.read_text(encoding="utf-8") == settings_page(), (
        "python -m stv_exp list settings --markdown > docs/settings.md"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_each_line_of_a_list_has_a_name_and_says_what_it_is(kind):
    lines = list(KINDS[kind]())
    assert lines and all(name and text and "\n" not in text for name, text in lines)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("models", "qwen2_5_vl       Qwen2.5-VL-7B."),
        ("methods", "stv                Sensitivity-aware task vectors (arXiv 2511.08246)."),
        ("settings", "policy.steps                      600  (at least 1 and at most 2147483647)"),
    ],
)
def test_a_list_is_printed_a_line_each(tmp_path, kind, line):
    done = run(tmp_path, "list", kind)
    assert done.returncode == 0 and line in done.stdout.splitlines(), done.text


def test_an_unknown_kind_is_refused_with_those_there_are(tmp_path):
    done = run(tmp_path, "list", "nothing")
    assert done.returncode == 2 and "'models'" in done.stderr


def test_only_settings_are_a_page(tmp_path):
    done = run(tmp_path, "list", "models", "--markdown")
    assert done.returncode == 2 and "--markdown writes settings alone" in done.stderr
