"""`dataset=words`: text-only relations between words (antonym, country_capital, past_tense, ...) for language models.

A task is a file `word_pairs/<task>.tsv` of lines `question<TAB>answer`, written for this project.
"""

from __future__ import annotations

import random
from pathlib import Path

from stv_exp.config import DatasetConfig
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError

READS: tuple[str, ...] = ()

_FOLDER = Path(__file__).with_name("word_pairs")


def load(config: DatasetConfig) -> Task:
    """The task `config.task` over a seeded choice of `config.support` and `config.eval` of its pairs.

    Neither split depends on the size of the other. Raises `StvError` where the task has fewer pairs.
    """
    examples = _examples(config.task)
    if config.support + config.eval > len(examples):
        raise StvError(
            f"dataset.task={config.task} has {len(examples)} pairs, fewer than dataset.support={config.support} "
            f"and dataset.eval={config.eval} together; lower one of them."
        )
    random.Random(0).shuffle(examples)
    # From both ends: a larger split begins with the smaller one, and never moves the other.
    support, evaluation = examples[: config.support], examples[::-1][: config.eval]
    return Task(f"{config.name}/{config.task}", tuple(support), tuple(evaluation))


def tasks() -> tuple[str, ...]:
    """Names of the available tasks, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.tsv")))


def _examples(task: str) -> list[Example]:
    lines = (_FOLDER / f"{task}.tsv").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("\t") for line in lines)
    return [Example(f"{task}-{i}", (), question, (answer,)) for i, (question, answer) in enumerate(pairs, 1)]
