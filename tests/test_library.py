"""The stages as functions: what a notebook does is what a run does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import stv_exp
from stv_exp import TaskVector, build_bank, configure, evaluate, fit, load_backbone, load_task, run, scan, search
from stv_exp.errors import StvError

SMALL = ["model=tiny", "dataset.support=24", "dataset.eval=12", "scan.pairs=12", "policy.steps=4", "policy.samples=4"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("library")
    return configure(*SMALL, "method.k=5", "method.m=3", "tracker=none", f"outputs={outputs}")


def test_the_stages_make_what_a_run_makes(config):
    backbone, task = load_backbone(config), load_task(config)
    vector = search(backbone, task, build_bank(scan(backbone, task, config), config), config)
    predictions = evaluate(backbone, task, vector, config)
    metrics = run(config)
    (folder,) = (Path(config.outputs) / "runs").glob("*/")
    kept = TaskVector.load(folder / "task_vector.safetensors")
    assert (kept.vectors == vector.vectors).all() and (kept.locations == vector.locations).all()
    assert vector.metadata.items() <= kept.metadata.items()
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == [p.prediction for p in predictions]
    assert metrics["accuracy"] == sum(p.correct for p in predictions) / len(predictions)


K = "method.k=5"


@pytest.mark.parametrize(
    "method", [["stv", K], ["stv_identity", K, "method.where=indirect_effect"], ["savs", K], ["i2cl"], ["few_shot"]]
)
def test_fit_makes_of_any_method_what_a_run_evaluates(tmp_path, method):
    name, *choices = method
    words = ["model=tiny", "dataset.support=24", "dataset.eval=12", "tracker=none", f"outputs={tmp_path}"]
    steps = ["policy.steps=4"] if name.startswith("stv") else []
    config = configure(*words, f"method={name}", *choices, *steps)
    backbone, task = load_backbone(config), load_task(config)
    predictions = evaluate(backbone, task, fit(backbone, task, config), config)
    run(config)
    (file,) = tmp_path.glob("runs/*/predictions.jsonl")
    lines = file.read_text().splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == [p.prediction for p in predictions]


def test_a_wrong_setting_is_refused_as_on_the_command_line():
    with pytest.raises(StvError, match=r"policy\.lr=nan is not possible"):
        configure("policy.lr=nan")


def test_fit_keeps_to_a_budget_also_without_a_search(tmp_path):
    config = configure(*SMALL, "method=mean", K, "budget=10", "tracker=none", f"outputs={tmp_path}")
    with pytest.raises(StvError, match="budget=10 is too little for mean"):
        fit(load_backbone(config), load_task(config), config)


def test_every_public_name_is_there():
    assert all(hasattr(stv_exp, name) for name in stv_exp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        stv_exp.nothing  # noqa: B018


def test_limit_bounds_both_splits_and_debug_every_stage(tmp_path):
    few = configure("limit=20")
    assert (few.dataset.support, few.dataset.eval) == (20, 20)
    tiny = configure("method=mtv", "debug=true", f"outputs={tmp_path}")
    assert tiny.tracker.name == "none" and run(tiny)["n"] == 8
    held_out = configure(
        "method=few_shot", "method.shots=8", "dataset.validation=40", "debug=true", f"outputs={tmp_path}"
    )
    assert run(held_out)["n"] == 11, "enough support for the shots beside the validation"
