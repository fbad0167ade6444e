"""Word pairs are clean, splits never touch or move each other, and what is not there is refused by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from stv_exp.config import DatasetConfig, TemplateConfig
from stv_exp.data import words
from stv_exp.data.prompts import make_prompt
from stv_exp.data.task import Task
from stv_exp.errors import StvError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def dataset() -> DatasetConfig:
    """The shipped YAML as the program sees it."""
    values = yaml.safe_load((ROOT / "conf/dataset/words.yaml").read_text(encoding="utf-8"))
    return DatasetConfig(**{**values, "template": TemplateConfig(**values["template"])})


def lines(task: str) -> list[str]:
    return (Path(words.__file__).parent / "word_pairs" / f"{task}.tsv").read_text(encoding="utf-8").splitlines()


def pairs(task: str) -> list[list[str]]:
    return [line.split("\t") for line in lines(task)]


def cells(examples) -> list[tuple[str, str]]:
    return [(e.question, *e.answers) for e in examples]


def test_there_are_at_least_ten_tasks_of_at_least_110_pairs():
    assert len(words.tasks()) >= 10 and "antonym" in words.tasks()
    assert words.tasks() == tuple(sorted(words.tasks()))
    assert all(len(lines(task)) >= 110 for task in words.tasks())


@pytest.mark.parametrize("task", words.tasks())
def test_every_line_is_two_clean_cells(task):
    for pair in pairs(task):
        assert len(pair) == 2 and pair[0] != pair[1], pair
        assert all(cell and cell == " ".join(cell.split()) for cell in pair), pair


@pytest.mark.parametrize("task", words.tasks())
def test_no_question_and_no_answer_is_in_a_task_twice(task):
    for column in zip(*pairs(task), strict=True):
        assert max(Counter(word.casefold() for word in column).values()) == 1


def test_no_word_is_in_two_antonym_pairs():
    assert max(Counter(word for pair in pairs("antonym") for word in pair).values()) == 1


@pytest.mark.parametrize("task", words.tasks())
def test_no_eval_pair_can_be_read_off_the_support(dataset, task):
    loaded = words.load(replace(dataset, task=task))
    assert (len(loaded.support), len(loaded.evaluation)) == (60, 50)
    assert not {e.id for e in loaded.support} & {e.id for e in loaded.evaluation}
    known = set(cells(loaded.support))
    assert not any({(q, a), (a, q)} & known for q, a in cells(loaded.evaluation))


def test_an_example_is_text_only_and_named_after_its_line(dataset):
    task = words.load(dataset)
    assert task.name == "words/antonym" and task.labels == ()
    for example in (*task.support, *task.evaluation):
        name, _, number = example.id.rpartition("-")
        assert name == "antonym" and lines(name)[int(number) - 1] == "\t".join((example.question, *example.answers))
        assert example.images == ()


def test_a_larger_split_begins_with_the_smaller_one_and_leaves_the_other_alone(dataset):
    def load(support: int, evaluation: int) -> Task:
        return words.load(replace(dataset, support=support, eval=evaluation))

    base, more_support, more_eval = load(30, 20), load(80, 20), load(30, 70)
    assert more_support.evaluation == base.evaluation and more_support.support[:30] == base.support
    assert more_eval.support == base.support and more_eval.evaluation[:20] == base.evaluation


def test_every_pair_can_be_used_and_one_more_is_refused_with_the_number_there_is(dataset):
    there = len(lines("antonym"))
    task = words.load(replace(dataset, support=there - 50))
    assert len(task.support) + len(task.evaluation) == there
    with pytest.raises(StvError, match=f"antonym has {there} pairs"):
        words.load(replace(dataset, support=there - 49))


@pytest.mark.parametrize("task", words.tasks())
def test_every_prompt_ends_where_the_answer_begins(dataset, task):
    loaded, template = words.load(replace(dataset, task=task)), dataset.template
    for query in loaded.evaluation:
        text = make_prompt(template, query, loaded.support[:2]).text
        shown = "".join(f"Q: {q}\nA: {a}\n" for q, a in cells(loaded.support[:2]))
        assert text == f"{shown}Q: {query.question}\nA:" and "<image>" not in text
        # The query, its answer and a line's end are one more demonstration: nothing is lost or doubled at the seam.
        answer = template.answer.format(answer=query.answers[0])
        longer = make_prompt(template, query, (*loaded.support[:2], query)).text
        assert longer.startswith(text + answer + "\n")
