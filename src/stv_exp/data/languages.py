"""The testbed's tasks: an attribute named in a label language.

An *unambiguous* task has words of its own, so one demonstration gives it away. The *ambiguous* tasks take
their four words from the same eight: each is a block of the Steiner system S(3, 4, 8), so one word belongs
to about six tasks, two words to about three, and only three different words tell which task it is:
accuracy has to grow with shots.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from stv_exp.data.drawing import ATTRIBUTES

GENERIC_QUESTION = "what?"
LANGUAGES_PER_ATTRIBUTE = {"colour": 5, "shape": 5, "texture": 5, "position": 5, "size": 4}
AMBIGUOUS_ATTRIBUTES = ("colour", "shape", "texture", "position")
SHARED_WORDS = ("mo", "ri", "ta", "ve", "lu", "ke", "po", "ni")
EASY_VQA_COLOURS = ("red", "green", "blue", "yellow", "gray", "teal", "black", "brown")
EASY_VQA_SHAPES = ("circle", "rectangle", "triangle")


@dataclass(frozen=True)
class LabelTask:
    """An in-context task: which attribute is asked for, and the word of each of its values."""

    name: str
    attribute: str
    words: tuple[str, ...]
    ambiguous: bool = False

    @property
    def explicit_question(self) -> str:
        """The question that names the task; the generic question leaves it to the demonstrations."""
        return f"{self.name}?"


def shape_tasks() -> dict[str, LabelTask]:
    """The 36 tasks over drawn images by name: 24 unambiguous, 12 ambiguous."""
    return {task.name: task for task in (*_unambiguous_tasks(), *_ambiguous_tasks())}


def easy_vqa_tasks() -> dict[str, LabelTask]:
    """The four tasks over easy-VQA's pictures by name: colour or shape, in English or in a language of its own."""
    tasks = (
        LabelTask("easy-colour-0", "colour", EASY_VQA_COLOURS),
        LabelTask("easy-colour-1", "colour", _invented("easy-colour-1", len(EASY_VQA_COLOURS))),
        LabelTask("easy-shape-0", "shape", EASY_VQA_SHAPES),
        LabelTask("easy-shape-1", "shape", _invented("easy-shape-1", len(EASY_VQA_SHAPES))),
    )
    return {task.name: task for task in tasks}


def _unambiguous_tasks() -> list[LabelTask]:
    return [
        LabelTask(f"{attribute}-{i}", attribute, values if i == 0 else _invented(f"{attribute}-{i}", len(values)))
        for attribute, values in ATTRIBUTES.items()
        for i in range(LANGUAGES_PER_ATTRIBUTE[attribute])
    ]


def _ambiguous_tasks() -> list[LabelTask]:
    blocks = [b for b in itertools.combinations(range(8), 4) if b[0] ^ b[1] ^ b[2] ^ b[3] == 0]
    tasks = []
    for i, block in enumerate(blocks[: 3 * len(AMBIGUOUS_ATTRIBUTES)]):
        attribute = AMBIGUOUS_ATTRIBUTES[i % len(AMBIGUOUS_ATTRIBUTES)]
        words = [SHARED_WORDS[w] for w in random.Random(i).sample(block, len(block))]
        tasks.append(LabelTask(f"{attribute}-shared-{i // 4}", attribute, tuple(words), ambiguous=True))
    return tasks


def _invented(language: str, n: int) -> tuple[str, ...]:
    """`n` invented words of two syllables and a consonant that belong to this language only."""
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstvz", "aeiou")]
    pick = random.Random(language)
    return tuple(f"{pick.choice(syllables)}{pick.choice(syllables)}{pick.choice('nrsx')}" for _ in range(n))
