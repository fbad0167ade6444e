"""The benchmarks run on any subject and write their figures as numbers, with the raw seconds beside."""

from __future__ import annotations

import json
import sys

import pytest

from stv_exp.bench import __main__ as bench
from stv_exp.bench.timing import Figure, in_turns, peak_bytes

KEYS = {
    "search.tree_over_reference",
    "search.tree_over_floor",
    "scan.over_floor",
    "insertion.over_plain",
    "insertion.over_8_shot",
}


@pytest.mark.parametrize("size", ["idefics2_1m", "qwen2_5_vl_1m"])
def test_the_benchmarks_write_every_figure_with_its_seconds(size, tmp_path, monkeypatch, capsys):
    path = tmp_path / "bench.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--size", size, "--rounds", "1", "--json", str(path)])
    bench.main()
    written = json.loads(path.read_text())
    assert written.keys() >= KEYS
    assert all(written[key] > 0 for key in KEYS)
    for key in KEYS:
        name, figure = key.split(".")
        assert written[name][figure] == written[key]
        assert written[name]["seconds"] and all(s > 0 for s in written[name]["seconds"].values())
    shown = capsys.readouterr().out
    assert "insertion.over_plain" in shown and ">= 0.97" in shown


def test_a_figure_says_whether_its_aim_is_met():
    assert Figure(2.0, 1.5).met and not Figure(1.0, 1.5).met
    assert Figure(1.0, 1.5, at_least=False).met and not Figure(2.0, 1.5, at_least=False).met
    assert Figure(1.0).met is None


def test_variants_are_timed_in_turns_after_a_warm_up():
    calls: list[str] = []
    seconds = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert seconds.keys() == {"a", "b"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the process's peak is read from /proc")
def test_peak_memory_counts_what_is_freed_again():
    assert 60e6 < peak_bytes(lambda: bytearray(64_000_000)) < 120e6
