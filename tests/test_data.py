"""Splits never touch, demonstrations are never their own query, and bad data is refused by name."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stv_exp.cli import configure
from stv_exp.config import FitConfig, TemplateConfig, learned_from
from stv_exp.data import easy_vqa, shapes
from stv_exp.data.demonstrations import DemonstrationSampler
from stv_exp.data.drawing import ATTRIBUTES, Attributes, draw
from stv_exp.data.images import open_image
from stv_exp.data.languages import SHARED_WORDS, easy_vqa_tasks, shape_tasks
from stv_exp.data.loader import check_dataset, load_task
from stv_exp.data.prompts import make_prompt
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError
from stv_exp.identity import settings, signatures
from stv_exp.pipeline import run
from stv_exp.task_vector import TaskVector


def test_the_many_tasks_differ_and_are_none_of_the_ambiguous_ones():
    tasks = shape_tasks().values()
    assert Counter(t.group for t in tasks) == {"unambiguous": 40, "ambiguous": 20, "many": 200}
    shared = [(t.attribute, t.words) for t in tasks if t.group != "unambiguous"]
    assert len(set(shared)) == len(shared)
    assert {t.explicit_question for t in tasks if t.group == "many"} == {"colour?", "shape?", "texture?", "position?"}


def test_unambiguous_words_belong_to_one_task_and_three_shared_words_to_one_at_most():
    tasks = shape_tasks().values()
    own = [word for t in tasks if t.group == "unambiguous" for word in t.words]
    assert len(own) == len(set(own)) and not set(own) & set(SHARED_WORDS)
    ambiguous = [set(t.words) for t in tasks if t.group == "ambiguous"]
    for i, a in enumerate(ambiguous):
        assert all(len(a & b) <= 2 for b in ambiguous[i + 1 :])
    for word in SHARED_WORDS:
        assert sum(word in words for words in ambiguous) >= 4


def test_no_image_is_in_two_splits():
    seen = set()
    for split in ("train", "support", "eval"):
        for family in ("plain", "shifted"):
            _, images = shapes.drawn(split, 200, family)
            digests = {image.tobytes() for image in images}
            assert len(digests) == 200 and not digests & seen
            seen |= digests


def test_a_larger_split_begins_with_the_smaller_one():
    (small, few), (large, many) = shapes.drawn("eval", 30), shapes.drawn("eval", 700)
    assert np.array_equal(few, many[:30]) and np.array_equal(small.values, large.values[:30])


def test_the_shifted_family_has_other_colours_and_the_same_labels():
    attributes = Attributes.sample(300, np.random.default_rng(0))
    plain, shifted = (draw(attributes, np.random.default_rng(1), family) for family in ("plain", "shifted"))
    for value in range(len(ATTRIBUTES["colour"])):
        rows = attributes.of("colour") == value
        assert np.abs(plain[rows].mean((0, 1, 2)) - shifted[rows].mean((0, 1, 2))).max() > 5


def test_every_demonstration_is_a_support_example_other_than_the_query(task):
    sampler = DemonstrationSampler(task, seed=0)
    support = {e.id for e in task.support}
    for query in (*task.support, *task.evaluation):
        ids = [d.id for d in sampler.draw(query, 5, "scan")]
        assert query.id not in ids and set(ids) <= support and len(set(ids)) == 5


def test_demonstrations_depend_on_seed_and_query_not_on_the_order_of_calls(task):
    first, second = task.support[:2]
    a, b = DemonstrationSampler(task, 0), DemonstrationSampler(task, 0)
    assert [a.draw(first, 3, "x"), a.draw(second, 3, "x")] == [b.draw(second, 3, "x"), b.draw(first, 3, "x")][::-1]
    assert DemonstrationSampler(task, 1).draw(first, 3, "x") != a.draw(first, 3, "x")


def wrong_labels(task: Task, share: float) -> dict[str, str]:
    right, noisy = {e.id: e for e in task.support}, task.mislabelled(share)
    assert noisy.evaluation == task.evaluation  # what a method is judged by is right
    assert [replace(e, answers=right[e.id].answers) for e in noisy.support] == list(task.support)
    return {e.id: e.answers[0] for e in noisy.support if e.answers != right[e.id].answers}


@pytest.mark.parametrize(
    ("dataset", "words", "sentence"),
    [
        (
            "words",
            ["dataset.family=shifted"],
            r"dataset\.family=shifted is not read by stv_exp\.data\.words; leave it out",
        ),
        ("words", ["dataset.eval_split=nonsense"], "dataset.eval_split=nonsense is not read"),
        ("words", ["method=few_shot", "fit.family=shifted"], r"leave it out \(and fit\.family\)"),
        ("shapes", ["dataset.root=there"], "dataset.root=there is not read by stv_exp.data.shapes"),
        ("easy_vqa", ["dataset.episode.ways=3"], "dataset.episode=.* is not read"),
    ],
)
def test_a_setting_that_a_loader_does_not_read_is_refused(dataset, words, sentence):
    config = configure("method=zero_shot", f"dataset={dataset}", *words)
    for ask in (check_dataset, load_task):
        with pytest.raises(StvError, match=sentence):
            ask(config)


def test_label_noise_is_the_share_of_the_support_with_another_label(task):
    wrong = wrong_labels(task, 0.25)
    assert len(wrong) == round(0.25 * len(task.support)) > 0
    assert set(wrong.values()) <= set(task.labels)
    assert wrong.items() <= wrong_labels(task, 0.5).items() and len(wrong_labels(task, 1)) == len(task.support)


def test_label_noise_is_in_all_that_a_method_learns_from_and_in_none_of_its_queries(config):
    noisy = replace(config, dataset=replace(config.dataset, label_noise=1.0, validation=3))
    task, clean = load_task(noisy), load_task(replace(noisy, dataset=replace(noisy.dataset, label_noise=0.0)))
    for one, other in zip((*task.support, *task.validation), (*clean.support, *clean.validation), strict=True):
        assert one.id == other.id and one.answers != other.answers
    assert [e.answers for e in task.evaluation] == [e.answers for e in clean.evaluation]


def test_label_noise_is_of_the_labels_that_the_support_has(config):
    task = load_task(replace(config, dataset=replace(config.dataset, label_noise=1.0), fit=FitConfig(task="texture-1")))
    assert {e.answers[0] for e in task.support} <= set(shape_tasks()["texture-1"].words) != set(task.labels)


def test_label_noise_without_a_closed_set_of_labels_takes_answers_of_other_examples():
    config = configure("method=zero_shot", "dataset=words", "dataset.support=20", "dataset.label_noise=0.3")
    task, clean = load_task(config), load_task(replace(config, dataset=replace(config.dataset, label_noise=0.0)))
    wrong = [(own, right) for own, right in zip(task.support, clean.support, strict=True) if own != right]
    assert len(wrong) == 6 and not task.labels
    assert all(own.answers[0] in {e.answers[0] for e in clean.support} - {*right.answers} for own, right in wrong)
    assert task.evaluation == clean.evaluation


def test_label_noise_where_all_have_one_answer_is_refused(task):
    alike = tuple(replace(example, answers=("yes",)) for example in task.support)
    with pytest.raises(StvError, match="label_noise needs two labels or more, and "):
        replace(task, labels=(), support=alike).mislabelled(0.5)


def test_more_demonstrations_than_there_are_is_refused(task):
    with pytest.raises(StvError, match="24 demonstrations"):
        DemonstrationSampler(task, 0).draw(task.support[0], 24, "x")


def test_a_prompt_ends_where_the_answer_begins(task):
    template = TemplateConfig(prefix="Look. ", demonstration="<image>{question} {answer}\n", query="<image>{question}")
    prompt = make_prompt(template, task.evaluation[0], task.support[:2])
    a, b = (d.answers[0] for d in task.support[:2])
    assert prompt.text == f"Look. <image>what? {a}\n<image>what? {b}\n<image>what?"
    assert len(prompt.images) == 3


def test_easy_vqa_keeps_its_own_splits_and_hides_the_question(config):
    task = easy_vqa.load(replace(config.dataset, name="easy_vqa", task="easy-colour-1", support=50, eval=40))
    assert all(e.id.startswith("train-") for e in task.support)
    assert all(e.id.startswith("test-") for e in task.evaluation)
    assert {e.question for e in task.evaluation} == {"what?"}
    assert {a for e in task.evaluation for a in e.answers} <= set(easy_vqa_tasks()["easy-colour-1"].words)


def test_easy_vqa_without_its_package_says_what_to_install(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(StvError, match=r"pip install 'stv_exp\[easy-vqa\]'"):
        easy_vqa.load(replace(config.dataset, name="easy_vqa", task="easy-colour-1"))


@pytest.mark.parametrize(("split", "attribute"), [("train", "colour"), ("test", "shape")])
def test_easy_vqa_attributes_agree_with_the_packages_answers(split, attribute):
    package = pytest.importorskip("easy_vqa")
    known = {number: attributes for number, _, attributes in easy_vqa.pictures(split)}
    assert len(known) > 700
    for question, answer, number in zip(*getattr(package, f"get_{split}_questions")(), strict=True):
        asked = "colour" if question.startswith("what color") else "shape"
        if question.startswith(("what color", "what shape")) and number in known and asked == attribute:
            assert known[number][attribute] == answer


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n garbage"])
def test_a_missing_or_corrupt_image_is_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StvError, match=r"broken\.png cannot be read"):
        open_image(str(path))


def test_a_truncated_image_is_refused_by_name(tmp_path):
    path = tmp_path / "cut.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(StvError, match=r"cut\.png cannot be read"):
        open_image(str(path))


def test_an_empty_split_is_refused():
    one = (Example("a", (), "?", ("x",)),)
    with pytest.raises(StvError, match="support split of t is empty"):
        Task("t", (), one)
    with pytest.raises(StvError, match="eval split of t is empty"):
        Task("t", one, ())


def test_an_id_twice_in_one_split_is_refused():
    one = Example("a", (), "?", ("x",))
    with pytest.raises(StvError, match="t has an id twice in its support split"):
        Task("t", (one, one), (Example("b", (), "?", ("x",)),))


def test_splits_that_touch_are_refused():
    one = (Example("a", (), "?", ("x",)),)
    with pytest.raises(StvError, match="both support and eval"):
        Task("t", one, one)


def test_a_method_may_learn_from_other_data_than_it_is_asked_about(config):
    """Support and validation are those of `fit`, the queries those of `dataset`; what it makes is shared."""
    shifted = replace(config, dataset=replace(config.dataset, family="shifted", validation=3))
    known = replace(config, dataset=replace(config.dataset, validation=3))
    both = replace(shifted, fit=FitConfig(family="plain"))
    pixels = lambda examples: [example.images[0]().tobytes() for example in examples]  # noqa: E731
    task, plain = load_task(both), load_task(known)
    assert pixels(task.evaluation) == pixels(load_task(shifted).evaluation) != pixels(plain.evaluation)
    assert pixels(task.support) == pixels(plain.support) and pixels(task.validation) == pixels(plain.validation)
    with pytest.raises(StvError, match=r"dataset\.family='x' is unknown; choose one of plain, shifted"):
        load_task(replace(config, fit=FitConfig(family="x")))
    one, other = signatures(both), signatures(known)
    assert one.policy == other.policy and one.run != other.run, "they share what is made"
    assert settings(both)["fit"] == {"family": "plain"} and "fit" not in settings(config)


def test_what_prompts_with_nothing_learns_from_nothing(config):
    """Its runs are the same, wherever others learn; with demonstrations they are not."""
    elsewhere = FitConfig(task="colour-1")
    alone = replace(config, method=configure("method=zero_shot").method)
    assert signatures(alone) == signatures(replace(alone, fit=elsewhere))
    assert settings(alone) == settings(replace(alone, fit=elsewhere))
    asked = replace(alone, dataset=replace(alone.dataset, validation=2))
    assert signatures(asked) != signatures(replace(asked, fit=elsewhere)), "validation queries are of the support"
    assert signatures(config).run != signatures(replace(config, fit=elsewhere)).run


def test_a_vector_is_asked_in_another_template_than_it_was_found_in(config, tmp_path):
    """The stages up to the vector are shared with the run that is asked in its own, and the answers differ."""
    own = replace(config, outputs=str(tmp_path))
    other = replace(
        own, fit=FitConfig(template=TemplateConfig("", "<image>so {question} {answer}\n", "<image>so {question}", ""))
    )
    there = replace(own, dataset=replace(own.dataset, template=learned_from(other).template))
    vectors = []
    for job in (other, there):
        run(job, [])
        (path,) = (Path(job.outputs) / "runs" / signatures(job).run).glob("*.safetensors")
        vectors.append(TaskVector.load(path))
    assert torch.equal(vectors[0].vectors, vectors[1].vectors)
    assert signatures(other).policy == signatures(there).policy != signatures(own).policy


@pytest.mark.parametrize(
    ("dataset", "task", "choices"),
    [
        ("shapes", "colour-9", "colour-0, .*position-many-0"),
        ("easy_vqa", "easy-size-0", "easy-colour-0, .*easy-shape-0"),
        ("words", "synonym", ".*antonym, .*country_capital"),
        ("tuxpaint", "colour", "name, name-french, category"),
    ],
)
def test_an_unknown_task_is_refused_with_the_choices(dataset, task, choices):
    config = configure("method=zero_shot", f"dataset={dataset}", f"dataset.task={task}")
    for ask in (check_dataset, load_task):
        with pytest.raises(StvError, match=f"dataset.task='{task}' is unknown; choose one of {choices}"):
            ask(config)
