"""`dataset=easy_vqa`: pictures of the package `easy-vqa`, asked for their colour or shape with the question hidden.

Support comes from the package's train split and eval from its test split. The extra `easy-vqa` installs it.
"""

from __future__ import annotations

import random
from functools import partial

from stv_exp.config import DatasetConfig
from stv_exp.data.images import open_image
from stv_exp.data.languages import EASY_VQA_COLOURS, EASY_VQA_SHAPES, GENERIC_QUESTION, LabelTask, easy_vqa_tasks
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError

READS = ("explicit_question",)

_ATTRIBUTE_OF = dict.fromkeys(EASY_VQA_COLOURS, "colour") | dict.fromkeys(EASY_VQA_SHAPES, "shape")
Picture = tuple[int, str, dict[str, str]]


def load(config: DatasetConfig) -> Task:
    """The task `config.task` over a seeded choice of `config.support` train and `config.eval` test pictures."""
    task = easy_vqa_tasks()[config.task]
    support = _examples(task, "train", config.support, config)
    evaluation = _examples(task, "test", config.eval, config)
    return Task(f"{config.name}/{task.name}", support, evaluation, task.words)


def tasks() -> tuple[str, ...]:
    """Names of the available tasks."""
    return tuple(easy_vqa_tasks())


def pictures(split: str) -> list[Picture]:
    """Every picture of a split whose colour and shape its questions reveal: (number, path, attributes)."""
    try:
        import easy_vqa
    except ImportError as error:
        raise StvError("dataset=easy_vqa needs the package easy-vqa; run: pip install 'stv_exp[easy-vqa]'.") from error
    questions = zip(*getattr(easy_vqa, f"get_{split}_questions")(), strict=True)
    known: dict[int, dict[str, str]] = {}
    for question, answer, number in questions:
        if question.startswith("what"):  # the others may speak of what the picture does not show
            for word in (answer, *question.rstrip("?").split()):
                if word in _ATTRIBUTE_OF:
                    known.setdefault(number, {})[_ATTRIBUTE_OF[word]] = word
    paths = getattr(easy_vqa, f"get_{split}_image_paths")()
    return [(n, paths[n], attributes) for n, attributes in sorted(known.items()) if len(attributes) == 2]


def value_index(attribute: str, value: str) -> int:
    """Position of an English answer among its attribute's values: the index into a task's words."""
    return (EASY_VQA_COLOURS if attribute == "colour" else EASY_VQA_SHAPES).index(value)


def _examples(task: LabelTask, split: str, n: int, config: DatasetConfig) -> tuple[Example, ...]:
    found = pictures(split)
    if n > len(found):
        raise StvError(f"easy-VQA's {split} split has {len(found)} usable pictures, not {n}; ask for fewer.")
    question = task.explicit_question if config.explicit_question else GENERIC_QUESTION
    return tuple(
        Example(
            f"{split}-{number}",
            (partial(open_image, path),),
            question,
            (task.words[value_index(task.attribute, attributes[task.attribute])],),
        )
        for number, path, attributes in random.Random(0).sample(found, n)
    )
