"""Prompts: demonstrations and a query, as text with image placeholders plus the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from stv_exp.config import TemplateConfig
from stv_exp.data.task import Example

IMAGE = "<image>"  # a picture's place in a prompt, whatever the family of a model writes there


@dataclass(frozen=True)
class Prompt:
    """A query with its demonstrations. `text` has one `<image>` for each of `images`.

    `turns` is the same as a conversation: (what is asked, its answer) by demonstration; the query's answer is empty.
    """

    query: Example
    demonstrations: tuple[Example, ...]
    text: str
    turns: tuple[tuple[str, str], ...]
    template: TemplateConfig = field(hash=False, repr=False)

    @property
    def images(self) -> list[Image.Image]:
        """Decoded images in the order of their placeholders."""
        return [image for example in (*self.demonstrations, self.query) for image in example.pictures]

    def first(self, shots: int) -> Prompt:
        """The same query behind the first `shots` of its demonstrations only."""
        return make_prompt(self.template, self.query, self.demonstrations[:shots])


def make_prompt(template: TemplateConfig, query: Example, demonstrations: Sequence[Example] = ()) -> Prompt:
    """Render a prompt that ends where the answer begins."""
    shown = "".join(template.demonstration.format(question=d.question, answer=d.answers[0]) for d in demonstrations)
    text = template.prefix + shown + template.query.format(question=query.question)
    asked = [(template.query.format(question=e.question), e.answers[0]) for e in demonstrations]
    asked.append((template.query.format(question=query.question), ""))
    turns = ((template.prefix + asked[0][0], asked[0][1]), *asked[1:])
    return Prompt(query, tuple(demonstrations), text, turns, template)


def apart(template: TemplateConfig, example: Example) -> tuple[Prompt, Prompt]:
    """The question, and its answer, each alone behind the example's pictures, and written as an answer is."""
    return _alone(template, example, example.question), _alone(template, example, example.answers[0])


def _alone(template: TemplateConfig, example: Example, text: str) -> Prompt:
    pictures = IMAGE * (len(example.images) - text.count(IMAGE))  # where the question does not place them
    text = pictures + template.answer.format(answer=text)
    return Prompt(example, (), text, ((text, ""),), template)


def longest_first(prompts: Sequence[Prompt]) -> list[int]:
    """Indices by images and text, most first: batches of like lengths pad little, and memory runs out at once."""
    sizes = [(p.text.count(IMAGE), len(p.text)) for p in prompts]
    return sorted(range(len(prompts)), key=lambda i: sizes[i], reverse=True)
