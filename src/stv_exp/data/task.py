"""A task: labelled support examples to learn from and held-out eval examples to be judged on."""

from __future__ import annotations

import random
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from PIL import Image

from stv_exp.data.entry import broken
from stv_exp.errors import StvError


@dataclass(frozen=True)
class Example:
    """One question about images. `images` are opened when asked for, so that a split of any size is cheap."""

    id: str
    images: tuple[Callable[[], Image.Image], ...]
    question: str
    answers: tuple[str, ...]

    @property
    def pictures(self) -> list[Image.Image]:
        """Its images, opened; raises `StvError` with its id where one cannot be."""
        try:
            return [load() for load in self.images]
        except StvError as error:
            raise StvError(f"Example {self.id}: {error}") from error

    def check(self, name: str) -> None:
        """Raise `StvError` where a loader has made anything but texts, or texts that no file can hold."""
        parts = {"id": (self.id,), "question": (self.question,), "answers": self.answers}
        for part, texts in parts.items():
            try:
                together = "".join(texts)
            except TypeError:
                together = None
            if isinstance(texts, str) or not texts or together is None:
                found = f"{reprlib.repr(texts)} as its {part}"
                raise StvError(f"Example {self.id!r} of {name} has {found}; a loader gives texts.")
            if broken(together):
                raise StvError(f"Example {self.id!r} of {name} has half of a character in its {part}; correct it.")


@dataclass(frozen=True)
class Task:
    """Disjoint `support`, `evaluation` and `validation` splits, and the label words where they are a closed set.

    Settings may be chosen on `validation`, which is empty unless `held_out` has taken it from the support.
    """

    name: str
    support: tuple[Example, ...]
    evaluation: tuple[Example, ...]
    labels: tuple[str, ...] = ()
    validation: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        splits = {"support": self.support, "eval": self.evaluation, "validation": self.validation}
        for split, examples in splits.items():
            if not examples and split != "validation":
                raise StvError(f"The {split} split of {self.name} is empty; raise dataset.{split} or check the data.")
            for example in examples:
                example.check(self.name)
            if len({e.id for e in examples}) < len(examples):
                raise StvError(f"{self.name} has an id twice in its {split} split; give each example an id of its own.")
        for one, other in combinations(splits, 2):
            if both := {e.id for e in splits[one]} & {e.id for e in splits[other]}:
                raise StvError(f"{self.name} has {min(both)!r} in both {one} and {other}; the splits must not touch.")

    def mislabelled(self, share: float) -> Task:
        """The same with another label at a `share` of the support: the same examples for every seed.

        Those that are wrong with a share are wrong in the same way with a larger one. Where labels are no closed set,
        another example's answer is taken. Raises `StvError` where all have the same.
        """
        if not share:
            return self
        labels = self.labels or sorted({example.answers[0] for example in self.support})
        if len(labels) < 2:
            raise StvError(f"dataset.label_noise needs two labels or more, and {self.name} has one; set it to 0.")
        order = list(range(len(self.support)))
        random.Random("label_noise").shuffle(order)
        support = list(self.support)
        for i in order[: round(share * len(order))]:
            support[i] = _wrong(support[i], labels)
        return replace(self, support=tuple(support))

    def held_out(self, n: int) -> Task:
        """The same with `n` examples moved from the support to validation, the same ones for every seed."""
        if n == 0:
            return self
        if not 0 < n < len(self.support):
            raise StvError(
                f"dataset.validation={n} cannot be held out of the {len(self.support)} support examples of "
                f"{self.name}; choose 0 to {len(self.support) - 1}."
            )
        taken = set(random.Random("validation").sample(range(len(self.support)), n))
        validation = tuple(e for i, e in enumerate(self.support) if i in taken)
        return replace(
            self, support=tuple(e for i, e in enumerate(self.support) if i not in taken), validation=validation
        )


def _wrong(example: Example, labels: Sequence[str]) -> Example:
    """With one of the labels that is no answer to it."""
    wrong = [label for label in labels if label not in example.answers]
    return replace(example, answers=(random.Random(example.id).choice(wrong),)) if wrong else example


def most_frequent_first(answers: Sequence[str]) -> tuple[str, ...]:
    """All answers, moved so that the most frequent one that is not blank, which demonstrations show, comes first."""
    first = max((answer for answer in answers if answer.strip()), key=answers.count)
    return tuple(sorted(answers, key=first.__ne__))
