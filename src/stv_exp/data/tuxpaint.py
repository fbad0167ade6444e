"""`dataset=tuxpaint`: the stamps of the Debian package `tuxpaint-stamps-default`, read from their installed folder.

A stamp is `<category>/.../NAME.png` with `NAME.txt`: its English description, then `LANGUAGE.utf8=` translations.
Every task asks the same question, so that only demonstrations tell what is wanted (see `explicit_question`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import attrgetter
from pathlib import Path

from stv_exp.config import DatasetConfig
from stv_exp.data.broken import sound
from stv_exp.data.entry import broken
from stv_exp.data.files import expanded, read_lines
from stv_exp.data.images import picture, readable
from stv_exp.data.installed import INSTALLED
from stv_exp.data.languages import GENERIC_QUESTION, KINDS, LabelTask, kind_tasks
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError

READS = ("root", "explicit_question", "skip_broken")

QUESTIONS = {
    "name": "What is this?",
    "name-french": "What is this in French?",
    "category": "What kind of thing is this?",
    **{task.name: task.explicit_question for task in kind_tasks().values()},
}
MOST_WORDS = 4  # longer descriptions are sentences, not names
_ARTICLE = re.compile(r"^(?:an?|the|some|une?|des|les?|la|du|de la)\s+|^l['’]", re.IGNORECASE)


@dataclass(frozen=True)
class Stamp:
    """One picture and what its text says."""

    path: Path
    category: str
    english: str
    french: str


def load(config: DatasetConfig) -> Task:
    """The task `config.task` over a seeded choice of `config.support` and `config.eval` stamps, none in both.

    Neither split depends on the size of the other. Raises `StvError` where there are no stamps, or too few.
    """
    root = expanded(config.root or INSTALLED)
    examples, labels = _TASKS[config.task](stamps(root, config))
    question = QUESTIONS[config.task] if config.explicit_question else GENERIC_QUESTION
    usable = readable(
        [Example(_id(stamp, root), (picture(stamp.path),), question, answers) for stamp, answers in examples],
        config.skip_broken,
    )
    if config.support + config.eval > len(usable):
        raise StvError(
            f"dataset.task={config.task} has {len(usable)} stamps, fewer than dataset.support={config.support} and "
            f"dataset.eval={config.eval} together; lower one of them."
        )
    return Task(f"{config.name}/{config.task}", usable[: config.support], usable[::-1][: config.eval], labels)


def tasks() -> tuple[str, ...]:
    """Names of the available tasks."""
    return tuple(QUESTIONS)


def stamps(root: Path, config: DatasetConfig) -> list[Stamp]:
    """Every stamp below `root` that has a text, by path; raises `StvError` that says what to install."""
    paths = [path for path in sorted(root.glob("*/**/*.png")) if path.with_suffix(".txt").is_file()]
    if not paths:
        raise StvError(
            f"dataset.root={root} has no stamps (<category>/NAME.png with NAME.txt); install the Debian package "
            "tuxpaint-stamps-default, or set dataset.root to the folder tuxpaint/stamps that it brings."
        )
    return sound(paths, lambda path: _stamp(path, root), attrgetter("path"), root, config)


def _stamp(path: Path, root: Path) -> Stamp:
    if broken(str(path)):
        raise StvError(f"{path} has a name that is no text; rename the file.")
    english, *others = read_lines(path.with_suffix(".txt"))
    french = next((line.removeprefix("fr.utf8=") for line in others if line.startswith("fr.utf8=")), "")
    return Stamp(path, path.relative_to(root).parts[0], english, french)


def _id(stamp: Stamp, root: Path) -> str:
    return stamp.path.relative_to(root).with_suffix("").as_posix()


Answered = tuple[list[tuple[Stamp, tuple[str, ...]]], tuple[str, ...]]


def _names(found: Sequence[Stamp]) -> Answered:
    return _named(found, lambda stamp: stamp.english)


def _french_names(found: Sequence[Stamp]) -> Answered:
    return _named(found, lambda stamp: stamp.french)


def _named(found: Sequence[Stamp], text: Callable[[Stamp], str]) -> Answered:
    """Stamps with a name of at most `MOST_WORDS` words: without its article, which is accepted too."""
    names = ((stamp, text(stamp).strip(" .!").lower()) for stamp in _shuffled(found))
    short = ((stamp, name) for stamp, name in names if 0 < len(name.split()) <= MOST_WORDS)
    return [(stamp, tuple(dict.fromkeys((_ARTICLE.sub("", name, 1), name)))) for stamp, name in short], ()


def _categories(found: Sequence[Stamp]) -> Answered:
    return [(stamp, (stamp.category,)) for stamp in _shuffled(found)], tuple(sorted({s.category for s in found}))


def _kinds(task: LabelTask, found: Sequence[Stamp]) -> Answered:
    """The four kinds of things that the testbed knows from emoji, in turn and equally often, in its words for them."""
    groups = [_shuffled([stamp for stamp in found if stamp.category == kind]) for kind in KINDS]
    if missing := [kind for kind, group in zip(KINDS, groups, strict=True) if not group]:
        raise StvError(f"dataset.task={task.name} needs stamps in the folder {missing[0]}; add some.")
    turns = chain.from_iterable(zip(*groups, strict=False))  # ends with the smallest
    return [(stamp, (task.words[i % len(KINDS)],)) for i, stamp in enumerate(turns)], tuple(sorted(task.words))


def _shuffled(found: Sequence[Stamp]) -> list[Stamp]:
    return random.Random(0).sample(found, len(found))


_TASKS: dict[str, Callable[[Sequence[Stamp]], Answered]] = {
    "name": _names,
    "name-french": _french_names,
    "category": _categories,
    **{name: partial(_kinds, task) for name, task in kind_tasks().items()},
}
