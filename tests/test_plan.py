"""A plan tells what a sweep has to do and costs, without doing it, and is close to what it then costs."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from stv_exp.cli import configure
from stv_exp.methods.method import Method
from stv_exp.pipeline import run
from stv_exp.plan import planned
from stv_exp.stages.estimate import estimate
from stv_exp.title import titles
from tests import forked

SMALL = [
    "policy.steps=150",
    "dataset.support=40",
    "dataset.eval=20",
    "scan.pairs=20",
    "policy.samples=4",
    "tracker=none",
]


def test_a_sweep_is_planned_and_not_run(tmp_path):
    sweep = ["-m", "+experiment=smoke", "tracker=none", "method.m=1,2", "seed=0,1"]
    made = forked.run(tmp_path, *(word.replace("0,1", "0") for word in sweep))
    assert made.returncode == 0, made.text
    before = sorted(tmp_path.rglob("*"))
    shown = forked.run(tmp_path, *sweep, "method.k=4,5", "plan=true")
    assert shown.returncode == 0 and "2 of 8 jobs are done" in shown.text, shown.text
    assert sorted(tmp_path.rglob("*")) == before, "nothing was made, not even a folder"
    states = re.findall(r"│ +(done|to run|cached in part \(scan\)) │", shown.text)
    assert states.count("done") == 2 and states.count("cached in part (scan)") == 2 and states.count("to run") == 4


def test_a_job_that_cannot_work_is_refused_in_a_plan_too(tmp_path):
    shown = forked.run(tmp_path, "-m", "+experiment=smoke", "method.k=4,99", "plan=true")
    assert shown.returncode == 1 and "method.k=99" in shown.stderr and "0 of 1 jobs are done" in shown.stdout


def test_a_budget_that_is_too_small_refuses_its_job_in_a_plan_and_shows_the_others(tmp_path):
    shown = forked.run(tmp_path, "-m", "+experiment=smoke", "budget=10,1000000", "plan=true")
    assert shown.returncode == 1 and "budget=10 is too little for" in shown.stderr, shown.text
    assert "budget=10 " in shown.stdout and "0 of 2 jobs are done" in shown.stdout and "Traceback" not in shown.text


@pytest.mark.parametrize("job", ["+experiment=smoke", "+experiment=pretrain_testbed"])
def test_a_single_job_of_any_kind_is_planned_and_not_run(tmp_path, job):
    shown = forked.run(tmp_path, job, "plan=true")
    assert shown.returncode == 0 and "Nothing was run" in shown.stdout, shown.text
    assert not list(tmp_path.glob("outputs/*/*")), "not even the folder of a run, which a report would name as damaged"


def test_a_single_job_that_cannot_work_is_refused_instead_of_planned(tmp_path):
    refused = forked.run(tmp_path, "+experiment=smoke", "method.k=99", "plan=true")
    assert refused.returncode == 1 and "method.k=99 is not within" in refused.stderr and not refused.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["method=stv", "method.k=8"],
        ["method=few_shot"],
        ["method=mtv"],
        ["method=tv", "scan.shots=2"],
        ["method=fv", "scan.shots=2"],
        ["method=savs", "method.k=5"],
    ],
)
def test_a_plan_is_close_to_what_the_job_then_costs(tmp_path, words):
    read = Method.of(configure(*words)).reads
    small = [word for word in SMALL if word.split("=")[0] in read or word.startswith(("dataset", "tracker"))]
    config = configure("model=tiny", *words, *small, f"outputs={tmp_path}")
    (job,) = planned([config])
    metrics = run(config, [])
    for counted, found in (("forwards", job.cost.forwards), ("tokens", job.cost.tokens)):
        assert found == pytest.approx(sum(metrics[counted].values()), rel=0.25)
    assert planned([config])[0].state == "done"


def test_what_jobs_share_is_counted_once(config):
    one, other = config, replace(config, method=replace(config.method, k=3))
    (first, second) = planned([one, other])
    scan = estimate("scan", config)
    assert scan.tokens > 0
    assert first.cost.tokens - second.cost.tokens == pytest.approx(scan.tokens)


def test_titles_tell_jobs_apart_by_what_varies():
    jobs = [configure("method=stv", f"method.k={k}", f"seed={s}") for k in (8, 16) for s in (0, 1)]
    assert titles(jobs) == ["stv k=8 seed 0", "stv k=8 seed 1", "stv k=16 seed 0", "stv k=16 seed 1"]
    two = [configure("method=few_shot", "method.shots=2"), configure("method=mean", "dataset.task=colour-0")]
    assert titles(two) == ["few_shot position-shared-0", "mean colour-0"], "its name tells a method's own settings"
    methods = [configure("method=mtv", "seed=0"), configure("method=mtv", "seed=1"), configure("method=stv_gradient")]
    assert titles(methods) == ["mtv seed 0", "mtv seed 1", "stv_gradient seed 0"]
    ways = [configure("method=stv", f"method.how={how}") for how in ("reinforce", "greedy")]
    assert titles([*ways, methods[0]])[:2] == ["stv how=reinforce", "stv how=greedy"], "where it varies within a method"
    thinking = ["model=qwen3", "dataset=words", "method=few_shot", "model.chat=true"]
    asked = [configure(*thinking, f"+model.chat_arguments.enable_thinking={way}") for way in ("true", "false")]
    assert titles(asked) == ["few_shot enable_thinking=True", "few_shot enable_thinking=False"]
    assert titles(jobs[:1]) == ["stv k=8 m=8 position-shared-0 seed 0"]
