"""The published rival's prompts (MTV), to the letter: its numbers can be compared only under its own prompts."""

from __future__ import annotations

import pytest
from PIL import Image

from stv_exp import configure
from stv_exp.config import TemplateConfig
from stv_exp.data.prompts import make_prompt
from stv_exp.data.task import Example

PREFIX = (
    "First carefully understand the given examples. \n"
    "Then use the given image and answer the question in the same way as the examples. \n"
    "If the question can not be answered, respond unanswerable. "
)
VIZWIZ = TemplateConfig(
    prefix=PREFIX,
    demonstration="<image>{question} Answer: {answer}",
    query="<image>{question} Answer:",
    answer=" {answer}",
)
OKVQA = TemplateConfig(
    demonstration="<image>{question} Answer:{answer}", query="<image>{question} Answer:", answer="{answer}"
)


def example(name: str, question: str, *answers: str) -> Example:
    return Example(name, (Image.new("RGB", (4, 4)).copy,), question, answers)


SHOWN = [
    example("a", "What is this?", "unanswerable", "can"),
    example("b", "Is the {light} on?", "yes"),
]
QUERY = example("c", "What colour is it?", "blue")


def test_a_lines_end_on_the_command_line_is_one():
    config = configure("method=few_shot", r'dataset.template.demonstration="{question}\n{answer}\n"')
    assert config.dataset.template.demonstration == "{question}\n{answer}\n"


def test_vizwiz_has_its_prefix_and_a_space_before_each_answer():
    assert make_prompt(VIZWIZ, QUERY, SHOWN).text == (
        "First carefully understand the given examples. \n"
        "Then use the given image and answer the question in the same way as the examples. \n"
        "If the question can not be answered, respond unanswerable. "
        "<image>What is this? Answer: unanswerable"
        "<image>Is the {light} on? Answer: yes"
        "<image>What colour is it? Answer:"
    )


def test_vizwiz_keeps_its_prefix_without_demonstrations():
    assert make_prompt(VIZWIZ, QUERY).text == PREFIX + "<image>What colour is it? Answer:"


def test_okvqa_has_no_space_before_an_answer():
    assert make_prompt(OKVQA, QUERY, SHOWN).text == (
        "<image>What is this? Answer:unanswerable<image>Is the {light} on? Answer:yes<image>What colour is it? Answer:"
    )


@pytest.mark.parametrize("template", [VIZWIZ, OKVQA])
def test_a_demonstration_is_the_query_with_its_answer(template):
    """So that what an answer is scored behind is what stands before it in the demonstrations."""
    shown = make_prompt(template, QUERY, SHOWN[:1]).text
    alone = make_prompt(template, SHOWN[0]).text
    assert shown.startswith(alone + template.answer.format(answer=SHOWN[0].answers[0]) + "<image>")
