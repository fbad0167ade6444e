"""One budget for every method: token-forwards of all that comes before the evaluation, never exceeded."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from stv_exp.config import Config, TemplateConfig, TrainConfig
from stv_exp.data.prompts import make_prompt
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError
from stv_exp.identity import signatures
from stv_exp.library import build_bank
from stv_exp.methods.method import Method
from stv_exp.models.edits import Insertion
from stv_exp.models.prefix import PrefixCache
from stv_exp.models.scoring import WAYS
from stv_exp.pipeline import run
from stv_exp.stages.budget import affordable
from stv_exp.stages.scan import scan
from stv_exp.stages.search import choose
from stv_exp.stages.train import Training, train
from tests.conftest import with_method
from tests.family_processors import WORDS

BUDGET = 1_000
NONE = {"where": "none", "what": "none", "how": "none"}
SEARCHES = {
    "stv": {},
    "mtv": {"where": "all", "what": "mean", "how": "bernoulli"},
    "gradient": {"where": "all", "how": "gumbel_softmax"},
    "mixture": {"where": "all", "how": "mixture"},
    "regularised_mixture": {"where": "all", "how": "regularised_mixture"},
    "cross_entropy": {"how": "cross_entropy"},
    "greedy": {"how": "greedy"},
    "best_of": {"how": "best_of"},
}
TRAININGS = {name: {**NONE, "edit": name, "site": "mlp"} for name in ("i2cl", "live", "mimic", "hificl", "lora")}


def capped(config: Config, budget: int, **method: object) -> Config:
    longer = replace(config.policy, steps=10_000, selection_draws=2)
    few = TrainConfig(epochs=500, batch=4, shots=2)
    return with_method(replace(config, budget=budget, policy=longer, train=few), **method)


def spent(metrics: dict) -> float:
    return sum(n for stage, n in metrics["token_forwards"].items() if stage != "evaluation")


@pytest.mark.parametrize("name", [*SEARCHES, *TRAININGS])
def test_no_method_takes_more_and_those_with_steps_use_it_up(backbone, task, config, name):
    config, before = capped(config, BUDGET, name=name, **(SEARCHES | TRAININGS)[name]), backbone.token_forwards
    if name in TRAININGS:
        train(backbone, task, config)
    else:
        bank = build_bank(scan(backbone, task, config), config)
        choose(backbone, task, bank, config, spent=backbone.token_forwards - before)
    assert 0.8 * BUDGET < backbone.token_forwards - before <= BUDGET


def told(config: Config) -> Config:
    """Without pictures."""
    template = TemplateConfig("", "Q: {question} A: {answer}\n", "Q: {question} A:", " {answer}")
    return replace(config, dataset=replace(config.dataset, template=template))


@pytest.fixture
def unlike() -> Task:
    """Questions of one to three words, with answers of one to four."""
    pick, known = random.Random(0), [word for word in WORDS.split() if word.islower()]
    drawn = [(pick.sample(known, 1 + i % 3), pick.sample(known, 1 + i % 4)) for i in range(32)]
    examples = [Example(f"w{i}", (), " ".join(q), (" ".join(a),)) for i, (q, a) in enumerate(drawn)]
    return Task("words", tuple(examples[:24]), tuple(examples[24:]))


@pytest.mark.parametrize("way", ["tree", "repeat", "full"])
@pytest.mark.parametrize("name", SEARCHES)
def test_answers_of_unlike_lengths_are_paid_for_as_they_are(backbone, unlike, config, name, way, monkeypatch):
    monkeypatch.setattr("stv_exp.models.scorer.fastest_way", lambda *_: way)
    config = capped(told(config), 4 * BUDGET, name=name, **SEARCHES[name])
    config = replace(config, policy=replace(config.policy, queries=8))
    before = backbone.token_forwards
    bank = build_bank(scan(backbone, unlike, config), config)
    choose(backbone, unlike, bank, config, spent=backbone.token_forwards - before)
    assert 0.7 * 4 * BUDGET < backbone.token_forwards - before <= 4 * BUDGET


def test_what_fills_up_a_batch_of_candidates_is_not_counted(backbone, unlike, config):
    prompts = [make_prompt(told(config).dataset.template, example) for example in unlike.support[:8]]
    answers = [backbone.encode_answer(prompt) for prompt in prompts]
    prefixes = PrefixCache(backbone, 1).get(prompts)
    vectors = torch.randn(1, 3, 1, backbone.heads.dim)
    for score in WAYS.values():
        before = backbone.token_forwards
        score(backbone, prefixes, answers, Insertion(torch.tensor([[0, 0]]), vectors), "prompt")
        assert backbone.token_forwards - before == 3 * sum(map(len, answers)) < 3 * 8 * max(map(len, answers))


@pytest.mark.parametrize("budget", [BUDGET, 10**6])
def test_a_run_keeps_to_it_and_one_that_is_never_reached_changes_nothing(config, budget):
    free, own = (run(replace(config, budget=n, outputs=f"{config.outputs}{n}"), []) for n in (0, budget))
    assert spent(own) <= budget
    assert (spent(own) == spent(free) and own["accuracy"] == free["accuracy"]) == (spent(free) <= budget)


def test_looks_at_validation_and_the_teacher_are_paid_from_it(backbone, task, config):
    held = task.held_out(4)
    patient = capped(config, 0, name="live", **TRAININGS["live"])
    patient = replace(patient, train=replace(patient.train, patience=100, tokens="answer"))
    before = backbone.token_forwards
    Training(backbone, held, Method.of(patient).edit, patient)
    teacher = backbone.token_forwards - before
    prompt = backbone.count_tokens([make_prompt(config.dataset.template, held.support[0])])
    # The look at the start, four steps of four queries and the look behind the fifth, which there is no money for.
    budget = int(teacher + 4 * prompt + 4 * 3 * 4 * prompt + 4 * prompt)
    module = Training(backbone, held, Method.of(patient).edit, replace(patient, budget=budget))
    assert module.steps == 4 and len(module.batches()) == 4


@pytest.mark.parametrize(
    ("budget", "method", "sentence"),
    [
        (10, {}, "budget=10 is too little for stv: 384 token-forwards come before its first step"),
        (500, {"where": "none", "what": "none", "how": "class_means", "name": "savs"}, None),
        (10, {"where": "none", "what": "none", "how": "class_means", "name": "savs"}, "too little for savs"),
        (10, TRAININGS["live"] | {"name": "live"}, "lower what comes before .scan.pairs, scan.shots, train.shots."),
        (10, {**NONE, "edit": "icv", "name": "icv"}, "too little for icv"),
    ],
)
def test_too_little_is_refused_in_a_sentence(config, budget, method, sentence):
    config = capped(config, budget, **method)
    config = replace(config, scan=replace(config.scan, per_label=2))
    if sentence is None:
        assert spent(run(config, [])) <= budget
        return
    with pytest.raises(StvError, match=sentence):
        run(config, [])


def test_a_budget_is_part_of_what_has_steps_and_of_nothing_else(config):
    def names(method: dict, budget: int) -> object:
        return signatures(capped(config, budget, **method))

    assert names({}, 900).scan == names({}, 0).scan and names({}, 900).policy != names({}, 0).policy
    assert names(TRAININGS["live"], 900).train != names(TRAININGS["live"], 0).train
    assert names(NONE, 900) == names(NONE, 0)


def test_what_passes_through_the_model_counts_without_its_padding(backbone, task, config):
    prompts = [
        make_prompt(config.dataset.template, e, task.support[: n + 1]) for n, e in enumerate(task.evaluation[:3])
    ]
    before = backbone.token_forwards
    backbone.forward(backbone.encode(prompts))
    assert backbone.token_forwards - before == backbone.count_tokens(prompts) < 3 * backbone.count_tokens(prompts[2:])


def test_the_most_steps_that_are_paid_for(config):
    config = replace(config, budget=100)
    cost = lambda steps: 7.0 * steps  # noqa: E731
    assert affordable(config, 30, cost, 50) == 10
    assert affordable(config, 30, cost, 6) == 6
    assert affordable(config, 93, cost, 6) == 1
    assert affordable(replace(config, budget=0), 1e9, cost, 6) == 6
    with pytest.raises(StvError, match="which takes 7"):
        affordable(config, 94, cost, 6)
