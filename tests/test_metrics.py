"""Every score is the published evaluation's, and every mean says how sure it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stv_exp.check_config import checked
from stv_exp.config import Config, DatasetConfig
from stv_exp.data.demonstrations import DemonstrationSampler
from stv_exp.data.prompts import make_prompt
from stv_exp.errors import StvError
from stv_exp.metrics import (
    METRICS,
    choice,
    exact_match,
    letter_of,
    metric,
    vizwiz_accuracy,
    vqa_accuracy,
    vqa_accuracy_qwen,
)
from stv_exp.pipeline import run
from stv_exp.stages.evaluate import Classification, Prediction, accuracy, evaluate, summary
from stv_exp.statistics import compare, interval, wilson
from stv_exp.task_vector import TaskVector
from tests.conftest import with_method


def said(**times: int) -> list[str]:
    """Answers of annotators: `said(cat=3, dog=7)`; underscores stand for spaces."""
    return [answer.replace("_", " ") for answer, n in times.items() for _ in range(n)]


# With m of ten annotators matching, leaving one out: (m * min(1, (m - 1) / 3) + (10 - m) * min(1, m / 3)) / 10.
BY_MATCHES = {0: 0.0, 1: 0.3, 2: 0.6, 3: 0.9, 4: 1.0}


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        # Agreement.
        ("cat", said(dog=9, cow=1), BY_MATCHES[0]),
        ("cat", said(cat=1, dog=9), BY_MATCHES[1]),
        ("cat", said(cat=2, dog=8), BY_MATCHES[2]),
        ("cat", said(cat=3, dog=7), BY_MATCHES[3]),
        ("cat", said(cat=4, dog=6), BY_MATCHES[4]),
        ("cat", said(cat=10), 1.0),
        # Fewer annotators: each is compared with those who are left.
        ("cat", said(cat=2), 1 / 3),
        ("cat", said(cat=3), 2 / 3),
        ("cat", said(cat=1, dog=1), (0 + 1 / 3) / 2),
        ("cat", said(cat=2, dog=3), (2 * 1 / 3 + 3 * 2 / 3) / 5),
        ("cat", said(cat=4, dog=1), 1.0),
        # Where all answers are the same, nothing but white space is processed.
        ("Cat", said(cat=10), 0.0),
        ("cat.", said(cat=10), 0.0),
        ("two", ["2"] * 10, 0.0),
        (" cat\n", said(cat=10), 1.0),
        ("red\tcat", said(red_cat=10), 1.0),
        # Else case, white space and articles go.
        ("Cat", said(cat=4, dog=6), 1.0),
        ("the  red cat", said(red_cat=4, dog=6), 1.0),
        ("an apple a day", said(apple_day=4, apple=6), 1.0),
        ("cat", ["The Cat", "a cat", "CAT", "cat", *said(dog=6)], 1.0),
        # Digit words up to ten, "none" among them.
        ("two", ["2"] * 4 + ["3"] * 6, 1.0),
        ("None", ["0"] * 4 + ["3"] * 6, 1.0),
        ("ten", ["10"] * 2 + ["11"] * 8, BY_MATCHES[2]),
        ("eleven", ["11"] * 4 + ["3"] * 6, 0.0),
        # Contractions.
        ("dont know", ["don't know"] * 4 + said(cat=6), 1.0),
        ("couldnt've", ["couldn't've"] * 4 + said(cat=6), 1.0),
        ("yall'd've", ["y'all'd've"] * 4 + said(cat=6), 1.0),
        ("maam", ["ma'am"] * 3 + said(cat=7), BY_MATCHES[3]),
        ("shed", ["she'd"] * 4 + said(cat=6), 0.0),  # a word of its own
        ("girls", ["girl's"] * 4 + said(cat=6), 0.0),
        # Punctuation: a space between letters, nothing beside a space.
        ("t-shirt", said(t_shirt=4, cat=6), 1.0),
        ("blue/green", said(blue_green=4, cat=6), 1.0),
        ("blue, green", said(blue_green=4, cat=6), 1.0),
        ("blue - green", said(blue_green=4, cat=6), 1.0),
        ("t-shirt - red", ["tshirt red"] * 4 + said(cat=6), 1.0),  # one loose mark loosens its like
        ("(yes!)", said(yes=4, no=6), 1.0),
        ("5:30", ["5:30"] * 4 + ["530"] * 6, 1.0),  # colons stay
        # Commas in numbers, and what they do to the marks around.
        ("1,000", ["1000"] * 4 + ["100"] * 6, 1.0),
        ("1,000 t-shirts", ["1000 tshirts"] * 4 + said(cat=6), 1.0),
        ("a,b", ["a b"] * 4 + said(cat=6), 1.0),  # both become "b"
        # Periods go unless a digit follows.
        ("yes.", said(yes=4, no=6), 1.0),
        ("2.5", ["2.5"] * 4 + ["25"] * 6, 1.0),
        ("10.", ["10"] * 4 + ["1"] * 6, 1.0),
        ("e.g", ["eg"] * 4 + said(cat=6), 1.0),
        ("." * 33 + "yes", [".yes"] * 4 + said(no=6), 0.0),  # the 33rd stays, the answer's only one goes
        ("", said(cat=4, dog=6), 0.0),
        ("the", ["a"] * 4 + said(dog=6), 1.0),  # nothing is left of either
    ],
)
def test_vqa_accuracy_is_the_published_one(prediction, answers, expected):
    assert vqa_accuracy(prediction, answers) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("Unanswerable.", said(unanswerable=10), 1.0),  # processed although all answers are the same
        ("unanswerable", said(unanswerable=2, unsuitable_image=8), BY_MATCHES[2]),
        ("unsuitable", said(unanswerable=5, unsuitable_image=5), 0.0),
        ("unsuitable image", said(unanswerable=7, unsuitable_image=3), BY_MATCHES[3]),
        ("the can", ["the can"] * 10, 0.0),  # answers are taken as they are
        ("dont know", ["don’t know"] * 4 + said(can=6), 1.0),
        ("wheres", ["where's"] * 4 + said(can=6), 1.0),
    ],
)
def test_vizwiz_processes_the_prediction_only_and_merges_no_refusals(prediction, answers, expected):
    assert vizwiz_accuracy(prediction, answers) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "answers", "expected", "official"),
    [
        # More than the official code gives, which processes nothing where all answers are the same.
        ("The Cat.", said(cat=10), 1.0, 0.0),
        ("dont know", ["don't know"] * 10, 1.0, 0.0),
        ("Cat", said(cat=4, cat_=6), BY_MATCHES[4], 0.0),  # white space of the answers counts: not all the same
        # Less, since the processed prediction meets answers that are not.
        ("two", said(two=10), 0.0, 1.0),
        ("t-shirt", ["t-shirt"] * 10, 0.0, 1.0),
        ("two", said(two=4, cat=6), 0.0, 1.0),
        ("2", said(two=3, cat=7), 0.0, BY_MATCHES[3]),
        ("Paris", said(Paris=4, paris=2, rome=4), BY_MATCHES[2], 1.0),
        ("the cat", said(the_cat=4, a_cat=3, cat=1, dog=2), BY_MATCHES[1], 1.0),
        ("dont know", said(dont_know=3, cat=7), 0.0, BY_MATCHES[3]),
        # The same: punctuation goes from answers that vary.
        ("t-shirt", ["t-shirt"] * 2 + said(t_shirt=1, cat=7), BY_MATCHES[3], BY_MATCHES[3]),
        ("\ncat\t", said(cat=2, dog=8), BY_MATCHES[2], BY_MATCHES[2]),
    ],
)
def test_vqa_accuracy_of_the_qwen_code_processes_other_texts_than_the_official_one(
    prediction, answers, expected, official
):
    assert vqa_accuracy_qwen(prediction, answers) == pytest.approx(expected, abs=1e-12)
    assert vqa_accuracy(prediction, answers) == pytest.approx(official, abs=1e-12)


@pytest.mark.parametrize("score", [vqa_accuracy, vqa_accuracy_qwen, vizwiz_accuracy])
@pytest.mark.parametrize("answers", [[], ["cat"]])
def test_vqa_accuracy_of_fewer_than_two_answers_is_refused(score, answers):
    with pytest.raises(StvError, match=r"use dataset\.metric=exact_match"):
        score("cat", answers)


def test_exact_match_forgives_case_spaces_and_a_full_stop_only():
    assert exact_match(" Red  cat. ", ["red cat"]) == 1
    assert exact_match("red cats", ["red cat", "cat"]) == 0


@pytest.mark.parametrize("text", ["B", "b", "B.", "(B)", "b)", "B. rose", "B.rose", " B: rose"])
def test_an_option_letter_is_read_however_it_is_written(text):
    assert letter_of(text) == "b"
    assert (choice(text, ["B"]), choice(text, ["A"])) == (1, 0)


@pytest.mark.parametrize("text", ["", "rose", "a rose", "Both", "B rose", "2", "é"])
def test_what_names_no_option_earns_nothing(text):
    assert letter_of(text) is None
    assert choice(text, ["A"]) == 0


def test_answers_without_a_letter_are_refused_by_choice():
    with pytest.raises(StvError, match="option letters"):
        choice("A", ["rose"])


def test_an_unknown_metric_is_refused_with_the_choices():
    for refuse in (lambda: metric("bleu"), lambda: checked(Config(dataset=DatasetConfig(metric="bleu")))):
        with pytest.raises(StvError, match="exact_match, vqa_accuracy, vqa_accuracy_qwen, vizwiz_accuracy, choice"):
            refuse()


def test_answers_that_cannot_be_scored_are_refused_before_anything_is_generated(config, task):
    for name in ("vqa_accuracy", "choice"):
        broken = replace(config, dataset=replace(config.dataset, metric=name))
        with pytest.raises(StvError, match="Query eval-0 of shapes/position-shared-0 cannot be scored"):
            evaluate(None, task, None, broken)


def prediction(text: str, correct: float) -> Prediction:
    return Prediction("q", "?", ["A"], text, correct, [])


def test_the_parse_rate_is_reported_with_choice_only():
    found = [prediction("A", 1.0), prediction("B.", 0.0), prediction("a rose", 0.0), prediction("(a)", 1.0)]
    assert summary(found, "choice")["parse_rate"] == 0.75
    assert set(summary(found, "exact_match")) == {"accuracy", "accuracy_low", "accuracy_high", "n"}


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_intervals_are_those_of_the_textbooks(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-4)
    assert interval([1.0] * successes + [0.0] * (n - successes)) == wilson(successes, n)


def test_graded_scores_get_a_bootstrap_interval_that_is_the_same_every_time():
    scores = np.random.default_rng(1).choice([0, 1 / 3, 0.9, 1], size=400)
    low, high = interval(scores.tolist())
    deviation = scores.std() / 20
    assert (low, high) == pytest.approx((scores.mean() - 1.96 * deviation, scores.mean() + 1.96 * deviation), abs=0.004)
    assert interval(scores.tolist()) == (low, high)
    assert interval([0.9] * 5) == pytest.approx((0.9, 0.9))


def test_mcnemar_counts_the_items_that_only_one_got_right():
    a, b = [1.0] * 8 + [0.0] + [1.0] * 20, [0.0] * 8 + [1.0] + [1.0] * 20
    found = compare(a, b)
    assert found.p == pytest.approx(2 * (1 + 9) / 2**9)
    assert (found.n, found.difference) == (29, pytest.approx(7 / 29))
    assert found.low < 7 / 29 < found.high
    assert compare(b, a).p == found.p
    assert compare(a, a) == type(found)(29, 0.0, 0.0, 0.0, 1.0)


def test_mcnemar_holds_for_thousands_of_items():
    a, b = [1.0] * 3000 + [0.0] * 2500, [0.0] * 3000 + [1.0] * 2500
    assert 0 < compare(a, b).p < 1e-8


def test_graded_scores_are_compared_by_paired_bootstrap():
    pick = np.random.default_rng(0)
    a = pick.choice([0, 1 / 3, 1], size=300)
    better, same = np.clip(a + (pick.random(300) < 0.2) / 3, 0, 1), pick.permutation(a)
    assert compare(better, a).p < 0.001 and compare(better, a).low > 0
    assert compare(same, a).p > 0.05 and compare(same, a).low < 0 < compare(same, a).high


def test_every_metric_is_scored_with_its_interval_in_the_runs_metrics(config):
    metrics = run(with_method(config, name="zero_shot", where="none", what="none", how="none"), [])
    assert metrics["accuracy_low"] <= metrics["accuracy"] <= metrics["accuracy_high"] and metrics["n"] == 12
    vqa = {"vqa_accuracy", "vqa_accuracy_qwen", "vizwiz_accuracy"}
    assert set(METRICS) == {"exact_match", "choice", "likelihood"} | vqa


@torch.inference_mode()
def by_steps(backbone, prompt, answer, vector, when) -> float:
    """Mean log-likelihood of an answer that is fed token by token, with the vector inserted as in generation."""
    batch = dict(backbone.encode([prompt]))
    mask, total, cache = batch["attention_mask"], 0.0, None
    with vector.inserted(backbone.model, when):
        for token in answer:
            output = backbone.model(**batch, past_key_values=cache, use_cache=True)
            total += output.logits[0, -1].log_softmax(-1)[token].item()
            mask, cache = torch.cat([mask, mask[:, :1]], 1), output.past_key_values
            batch = {"input_ids": token[None, None], "attention_mask": mask}
    return total / len(answer)


@pytest.mark.parametrize(("when", "shots"), [("every_step", 0), ("prompt", 0), ("every_step", 2)])
def test_classification_scores_labels_as_brute_force_does(config, backbone, task, when, shots):
    words = task.labels
    labels = (words[0], f"{words[1]} {words[2]}", words[2], f"{words[0]} {words[1]} {words[3]}")
    pick = torch.Generator().manual_seed(0)
    locations = backbone.heads.all_locations()[::3][: 0 if shots else None]  # few-shot prompts go without a vector
    vector = TaskVector(locations, torch.randn(len(locations), backbone.heads.dim, generator=pick))
    config = replace(config, insertion=replace(config.insertion, when=when))
    sampler = DemonstrationSampler(task, 0)
    template = config.dataset.template
    prompts = [make_prompt(template, q, sampler.draw(q, shots, "eval")) for q in task.evaluation[:3]]
    module = Classification(backbone, None if shots else vector, config, labels)
    found = module.likelihoods(prompts)
    lengths = set()
    for q, prompt in enumerate(prompts):
        for i, label in enumerate(labels):
            answer = backbone.encode_answer(replace(prompt, query=replace(prompt.query, answers=(label,))))
            lengths.add(len(answer))
            expected = by_steps(backbone, prompt, answer, vector, when)
            assert found[q, i].item() == pytest.approx(expected, abs=1e-4)
    assert len(lengths) > 1
    assert module.predict_step(prompts, 0) == [labels[i] for i in found.argmax(-1)]


def test_a_run_by_likelihood_predicts_labels_whatever_the_batch(config, backbone, task):
    config = replace(config, dataset=replace(config.dataset, metric="likelihood"))
    found = evaluate(backbone, task, None, replace(config, method=replace(config.method, shots=1)))
    assert {p.prediction for p in found} <= set(task.labels)
    assert [p.correct for p in found] == [float(p.prediction in p.answers) for p in found]
    one = replace(config, method=replace(config.method, shots=1), trainer=replace(config.trainer, batch_size=5))
    before = backbone.token_forwards
    assert [p.prediction for p in evaluate(backbone, task, None, one)] == [p.prediction for p in found]
    middle = backbone.token_forwards
    evaluate(backbone, task, None, replace(one, trainer=replace(config.trainer, batch_size=2)))
    assert backbone.token_forwards - middle == middle - before, "settling how answers are scored is not counted"
    metrics = run(config, [])
    lines = next(Path(config.outputs, "runs").glob("*/predictions.jsonl")).read_text().splitlines()
    written = [json.loads(line) for line in lines]
    assert {p["prediction"] for p in written} <= set(task.labels)
    assert accuracy([Prediction(**p) for p in written]) == metrics["accuracy"]


def test_likelihood_without_a_closed_set_of_labels_is_refused(config, task):
    config = replace(config, dataset=replace(config.dataset, metric="likelihood"))
    with pytest.raises(StvError, match="needs a closed set of labels"):
        evaluate(None, replace(task, labels=()), None, config)
