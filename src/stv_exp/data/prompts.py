"""Prompts: demonstrations and a query, as text with image placeholders plus the images."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from stv_exp.config import TemplateConfig
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError


@dataclass(frozen=True)
class Prompt:
    """A query with its demonstrations. `text` has one `<image>` for each of `images`.

    `turns` is the same as a conversation: (what is asked, its answer) by demonstration; the query's answer is empty.
    """

    query: Example
    demonstrations: tuple[Example, ...]
    text: str
    turns: tuple[tuple[str, str], ...]

    @property
    def images(self) -> list[Image.Image]:
        """Decoded images in the order of their placeholders."""
        return [load() for example in (*self.demonstrations, self.query) for load in example.images]


def make_prompt(template: TemplateConfig, query: Example, demonstrations: Sequence[Example] = ()) -> Prompt:
    """Render a prompt that ends where the answer begins."""
    shown = "".join(template.demonstration.format(question=d.question, answer=d.answers[0]) for d in demonstrations)
    text = template.prefix + shown + template.query.format(question=query.question)
    asked = [(template.query.format(question=e.question), e.answers[0]) for e in demonstrations]
    asked.append((template.query.format(question=query.question), ""))
    turns = ((template.prefix + asked[0][0], asked[0][1]), *asked[1:])
    return Prompt(query, tuple(demonstrations), text, turns)


def longest_first(prompts: Sequence[Prompt]) -> list[int]:
    """Indices by images and text, most first: batches of like lengths pad little, and memory runs out at once."""
    sizes = [(p.text.count("<image>"), len(p.text)) for p in prompts]
    return sorted(range(len(prompts)), key=lambda i: sizes[i], reverse=True)


@dataclass(frozen=True)
class DemonstrationSampler:
    """Seeded random demonstrations from the support split, never the query itself.

    The draw depends on the seed and the query's id only, not on the order of calls. With `label_noise`
    that share of the demonstrations shows another label of the task.
    """

    task: Task
    seed: int
    label_noise: float = 0.0

    def draw(self, query: Example, shots: int, purpose: str) -> tuple[Example, ...]:
        """`shots` demonstrations for `query`; `purpose` keeps the scan's and the evaluation's draws apart."""
        support = self.task.support
        if shots >= len(support):
            raise StvError(
                f"{shots} demonstrations were asked for, but the support split of {self.task.name} has "
                f"{len(support)} and one may be the query; lower the shots or raise dataset.support."
            )
        pick = random.Random(f"{self.seed}/{purpose}/{query.id}")
        # One more than needed stands in for the query where it is drawn: no scan of the split for every query.
        drawn = [e for e in pick.sample(support, shots + 1) if e.id != query.id]
        return tuple(self._noisy(example, pick) for example in drawn[:shots])

    def _noisy(self, example: Example, pick: random.Random) -> Example:
        if pick.random() >= self.label_noise:
            return example
        wrong = [label for label in self.task.labels if label not in example.answers]
        if not wrong:
            raise StvError(
                f"dataset.label_noise needs a closed set of labels, and {self.task.name} has none; set it to 0."
            )
        return replace(example, answers=(pick.choice(wrong),))
