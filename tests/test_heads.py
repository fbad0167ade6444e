"""Which heads runs have ranked and taken: numbers that are known, from folders as runs leave them."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from stv_exp.report.__main__ import main
from stv_exp.report.ranks import kappa, layer_share, rank_correlation
from tests.report_runs import write_run

LAYERS, HEADS = 4, 8


def ranked(outputs: Path, name: str, method: str, task: str, seed: int, scores: np.ndarray | None, k: int) -> None:
    """A run that has taken the k best of its scores, or the last k heads where nothing ranked them."""
    grid = {"layers": LAYERS, "heads": HEADS}
    own = {"name": method, "site": "head"}
    folder = write_run(outputs, name, ["a"], ["a"], seed=seed, metrics=grid, method=own, dataset={"task": task})
    manifest = (folder / "manifest.json").read_text().replace('"inputs": {}', f'"inputs": {{"bank": "{name}"}}')
    (folder / "manifest.json").write_text(manifest)
    order = np.arange(LAYERS * HEADS) if scores is None else scores.argsort(axis=None)
    locations = np.stack(np.unravel_index(order[-k:], (LAYERS, HEADS)), axis=1)
    save_file({"locations": locations}, folder / "task_vector.safetensors")
    bank = outputs / "stages" / f"bank-{name}"
    bank.mkdir(parents=True)
    kept = {"locations": locations} | ({} if scores is None else {"scores": scores})
    save_file(kept, bank / "artefact.safetensors", {"Bank": '{"scores": null}' if scores is None else "{}"})


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, pd.DataFrame]:
    """stv ranks by layer, the same way for both seeds and the other way round for the other task; mtv ranks nothing."""
    outputs = tmp_path_factory.mktemp("heads") / "outputs"
    by_layer = np.arange(LAYERS * HEADS, dtype=np.float32).reshape(LAYERS, HEADS)
    for seed in (0, 1):
        ranked(outputs, f"there{seed}", "stv", "there", seed, by_layer, 8)
        ranked(outputs, f"back{seed}", "stv", "back", seed, -by_layer, 8)
        ranked(outputs, f"mtv{seed}", "mtv", "there", seed, None, 8)
    words = ["report", str(outputs), "--heads"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()):
        patch.setattr(sys, "argv", words)
        assert main() == 0
    return {path.stem: pd.read_csv(path).set_index("method") for path in (outputs / "report").glob("*.csv")}


def test_a_method_is_told_by_how_alike_its_runs_are(tables):
    stv, mtv = (tables["heads"].loc[name] for name in ("stv", "mtv"))
    assert (stv["correlation over seeds"], stv["correlation over tasks"]) == ("1.000", "-1.000")
    assert stv["kappa over seeds"] == 1 and float(stv["kappa over tasks"]) == pytest.approx(-1 / 3, abs=1e-3)
    assert (stv["runs"], stv["heads"], mtv["correlation over seeds"]) == (4, 8, "-")
    assert stv["layer share"] > 0.9 and stv["shuffled"] < 0.2 and stv["p"] == "< 0.001"


def test_methods_agree_where_they_have_run_on_the_same_task(tables):
    assert tables["agreement"].loc["stv", "mtv"] == tables["agreement"].loc["mtv", "mtv"] == 1
    assert [*tables["correlation"].columns] == ["stv"]


def test_a_damaged_bank_and_a_vector_of_another_model_are_named(monkeypatch, capsys, tmp_path):
    scores = np.arange(LAYERS * HEADS, dtype=np.float32).reshape(LAYERS, HEADS)
    for name in ("good", "lost", "other"):
        ranked(tmp_path, name, "stv", name, 0, scores, 4)
    (tmp_path / "stages/bank-lost/artefact.safetensors").unlink()
    save_file({"locations": np.array([[9, 9]])}, tmp_path / "runs/other/task_vector.safetensors")
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path), "--heads"])
    assert main() == 0
    said = capsys.readouterr().out
    assert "Run lost is left out" in said and "Run other is left out: task_vector.safetensors has heads" in said


def test_axes_and_heads_are_not_asked_at_once(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path), "--heads", "--rows", "method"])
    assert main() == 1 and "--heads has tables of its own" in capsys.readouterr().err


def test_runs_without_heads_say_so(monkeypatch, capsys, tmp_path):
    write_run(tmp_path, "plain", ["a"], ["a"], method={"name": "few_shot", "site": "head"})
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path), "--heads"])
    assert main() == 1 and "None of these runs inserts at heads" in capsys.readouterr().err


def test_kappa_is_cohens():
    """Of 50 things 20 are taken by both, 5 by the one, 10 by the other: .70 observed, .50 by chance."""
    a = np.array([True] * 25 + [False] * 25)
    b = np.array([True] * 20 + [False] * 5 + [True] * 10 + [False] * 15)
    assert kappa(a, b) == pytest.approx(0.4) and kappa(a, a) == 1 and np.isnan(kappa(a | True, a | True))


def test_rank_correlation_is_spearmans_and_leaves_out_what_has_no_number():
    a = np.array([106, 100, 86, 101, 99, 103, 97, 113, 112, 110.0])
    b = np.array([7, 27, 2, 50, 28, 29, 20, 12, 6, 17.0])
    assert rank_correlation(a, b) == pytest.approx(-29 / 165)
    assert rank_correlation(np.append(a, np.nan), np.append(b, 1e9)) == pytest.approx(-29 / 165)


def test_heads_without_order_are_not_told_from_shuffled_ones():
    """One ranking of chance repeated is still one: what many alike rankings share is shuffled alike."""
    rng = np.random.default_rng(0)
    ps = [layer_share([rng.random((LAYERS, HEADS))] * 20)[2] for _ in range(20)]
    assert sum(p < 0.05 for p in ps) <= 3
    assert all(map(np.isnan, layer_share([np.ones((LAYERS, HEADS))])))
