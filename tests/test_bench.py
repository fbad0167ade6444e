"""The benchmarks run on any subject and write their figures as numbers, with the raw seconds beside."""

from __future__ import annotations

import json
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch

from stv_exp.bench import __main__ as bench
from stv_exp.bench.floor import Branches
from stv_exp.bench.subject import make_subject
from stv_exp.bench.timing import Figure, in_blocks, in_turns, peak_bytes
from stv_exp.models.edits import Insertion
from stv_exp.models.scoring import tree

KEYS = {
    "search": {"tree_over_reference", "tree_over_reference_8_queries", "tree_over_floor", "step_over_reference"},
    "gradient": {"step_over_floor", "loop_over_floor", "token_forwards_per_second_over_floor"},
    "sites": {"head_over_floor", "attention_over_floor", "mlp_over_floor", "residual_over_floor"},
    "late": {"upper_quarter_over_all", "upper_half_over_all", "upper_three_quarters_over_all", "every_layer_over_all"},
    "scan": {"over_floor"},
    "locations": {"saved_of_search", "saved_of_published"},
    "pictures": {"kept_over_pixels_0_shots", "kept_over_pixels_4_shots"},
    "insertion": {"over_plain", "over_8_shot"},
    "start": {"help_seconds", "lookup_seconds", "report_seconds", "sweep_lookup_seconds"},
}
SIZES = ["idefics2_1m", "qwen2_5_vl_1m"]


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """What a benchmark writes when it is named on the command line."""

    def measure(name: str, size: str) -> dict[str, Any]:
        path = tmp_path / "bench.json"
        words = ["bench", name, "--size", size, "--rounds", "1", "--threads", "1", "--json", str(path)]
        monkeypatch.setattr(sys, "argv", words)
        bench.main()
        return json.loads(path.read_text())

    return measure


def test_every_benchmark_is_tested():
    assert KEYS.keys() == bench.BENCHMARKS.keys()


@pytest.mark.parametrize("size", SIZES)
def test_the_floor_passes_the_tokens_that_the_search_scores(size):
    subject = make_subject(size, "cpu", "float32")
    branches = Branches.of(subject, 2, 3)
    nothing = Insertion(torch.zeros(0, 2, dtype=torch.long), torch.zeros(1, 3, 0, subject.backbone.heads.dim))
    scored = tree(branches.backbone, branches.prefixes, branches.answers, nothing, "every_step")
    likelihoods = branches.forward().log_softmax(-1)
    for query, answer in enumerate(branches.answers):
        torch.testing.assert_close(likelihoods[query][:, answer], scored[query], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_the_floor_of_the_gradient_leaves_the_model_as_it_was(size):
    subject = make_subject(size, "cpu", "float32")
    Branches.of(subject, 2, 1).forward_backward()
    assert all(p.grad is None and not p.requires_grad for p in subject.backbone.model.parameters())
    assert not subject.backbone.model.get_input_embeddings()._forward_hooks


LASTING = ("search", "gradient", "scan")
NAMED = [(name, size) for name, size in zip([name for name in KEYS if name != "start"], cycle(SIZES), strict=False)]


@pytest.mark.parametrize(
    ("name", "size"), [pytest.param(*case, marks=[pytest.mark.slow] * (case[0] in LASTING)) for case in NAMED]
)
def test_a_benchmark_writes_every_figure_with_its_seconds(name, size, measured):
    written = measured(name, size)
    for figure in KEYS[name]:
        assert written[f"{name}.{figure}"] == written[name][figure] > 0
    assert written[name]["seconds"] and all(s > 0 for s in written[name]["seconds"].values())


@pytest.mark.slow
def test_the_start_is_measured_in_a_folder_of_its_own(measured):
    before = set(Path.cwd().iterdir())
    written = measured("start", SIZES[0])
    assert all(seconds > 0 for seconds in written["start"]["seconds"].values())
    # One round is noisy, and this figure is a difference: here it is only told from a start of its own.
    assert written["start.sweep_lookup_seconds"] < written["start.lookup_seconds"]
    assert set(Path.cwd().iterdir()) == before


def test_a_figure_is_shown_with_its_aim(measured, capsys):
    measured("scan", SIZES[0])
    shown = capsys.readouterr().out
    assert "scan.over_floor" in shown and "<= 1.05" in shown


def test_an_unknown_benchmark_is_refused_with_those_there_are(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "policy"])
    with pytest.raises(SystemExit):
        bench.main()
    shown = capsys.readouterr().err
    assert all(name in shown for name in KEYS)


def test_lower_layers_are_passed_by_where_branches_start_late(measured):
    """The tiny models have two layers: what edits the upper one passes through half of them."""
    written = measured("late", SIZES[0])
    assert written["late.upper_half_token_forwards"] == 0.5
    assert written["late.every_layer_token_forwards"] == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the process's peak is read from /proc")
@pytest.mark.slow
def test_the_memory_of_a_gradient_step_is_told_beside_that_of_reinforce(measured):
    written = measured("gradient", SIZES[0])
    assert written["gradient"]["bytes"].keys() == {"gradient", "drawn"}
    assert written["gradient"]["aims"] == {"step_over_floor": 1.3, "memory_over_reinforce": 2}


def test_a_figure_says_whether_its_aim_is_met():
    assert Figure(2.0, 1.5).met and not Figure(1.0, 1.5).met
    assert Figure(1.0, 1.5, at_least=False).met and not Figure(2.0, 1.5, at_least=False).met
    assert Figure(1.0).met is None


def test_variants_are_timed_in_turns_after_a_warm_up():
    calls: list[str] = []
    seconds = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert seconds.keys() == {"a", "b"}


def test_what_takes_long_is_timed_without_a_warm_up():
    calls: list[str] = []
    in_turns({"a": lambda: calls.append("a")}, rounds=2, warm_up=False)
    assert calls == ["a"] * 2


def test_blocks_share_the_rounds_and_their_medians_are_kept():
    given: list[int] = []
    seconds = in_blocks(lambda rounds: given.append(rounds) or {"a": float(len(given) ** 2)}, rounds=7)
    assert given == [2, 2, 2]
    assert seconds == {"a": 4.0}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the process's peak is read from /proc")
def test_peak_memory_counts_what_is_freed_again():
    assert 60e6 < peak_bytes(lambda: bytearray(64_000_000), torch.device("cpu")) < 120e6
