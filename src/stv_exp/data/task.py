"""A task: labelled support examples to learn from and held-out eval examples to be judged on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from stv_exp.errors import StvError


@dataclass(frozen=True)
class Example:
    """One question about images. `images` are opened when asked for, so that a split of any size is cheap."""

    id: str
    images: tuple[Callable[[], Image.Image], ...]
    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """Disjoint `support` and `evaluation` splits, and the label words where they are a closed set."""

    name: str
    support: tuple[Example, ...]
    evaluation: tuple[Example, ...]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split, examples in (("support", self.support), ("eval", self.evaluation)):
            if not examples:
                raise StvError(f"The {split} split of {self.name} is empty; raise dataset.{split} or check the data.")
            if len({e.id for e in examples}) < len(examples):
                raise StvError(f"{self.name} has an id twice in its {split} split; give each example an id of its own.")
        both = {e.id for e in self.support} & {e.id for e in self.evaluation}
        if both:
            raise StvError(f"{self.name} has {min(both)!r} in both support and eval; the splits must not touch.")


def most_frequent_first(answers: Sequence[str]) -> tuple[str, ...]:
    """All answers, moved so that the most frequent one that is not blank, which demonstrations show, comes first."""
    first = max((answer for answer in answers if answer.strip()), key=answers.count)
    return tuple(sorted(answers, key=first.__ne__))
