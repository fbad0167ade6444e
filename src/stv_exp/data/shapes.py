"""`dataset=shapes`: the testbed's drawn images, one label task at a time (see `languages`)."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
from PIL import Image

from stv_exp.config import DatasetConfig
from stv_exp.data.drawing import ATTRIBUTES, FAMILIES, IMAGE_SIZE, Array, Attributes, draw
from stv_exp.data.languages import GENERIC_QUESTION, LabelTask, shape_tasks
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError

READS = ("family", "explicit_question")

# One random stream per split and family: no image is ever drawn in two of them.
_STREAMS = {"train": 0, "support": 1, "eval": 2}


def load(config: DatasetConfig) -> Task:
    """The task `config.task` over `config.support` and `config.eval` freshly drawn images."""
    task = shape_tasks()[config.task]
    if config.family not in FAMILIES:
        raise StvError(f"dataset.family={config.family!r} is unknown; choose one of {', '.join(FAMILIES)}.")
    support = _examples(task, "support", config.support, config)
    evaluation = _examples(task, "eval", config.eval, config)
    return Task(f"{config.name}/{task.name}", support, evaluation, tuple(sorted(set(task.words))))


def tasks() -> tuple[str, ...]:
    """Names of the available tasks."""
    return tuple(shape_tasks())


@lru_cache(maxsize=8)  # the jobs of a sweep share their pictures
def drawn(split: str, n: int, family: str = "plain") -> tuple[Attributes, Array]:
    """Attributes and images `[N, 64, 64, 3]` of a split; a split's first images do not depend on `n`."""
    values = [np.zeros((0, len(ATTRIBUTES)), dtype=np.int64)]
    images = [np.zeros((0, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)]
    for start in range(0, n, 500):
        rng = np.random.default_rng((_STREAMS[split], FAMILIES.index(family), start))
        chunk = Attributes.sample(500, rng)
        values.append(chunk.values)
        images.append(draw(chunk, rng, family))
    return Attributes(np.concatenate(values)[:n]), np.concatenate(images)[:n]


def _examples(task: LabelTask, split: str, n: int, config: DatasetConfig) -> tuple[Example, ...]:
    attributes, images = drawn(split, n, config.family)
    question = task.explicit_question if config.explicit_question else GENERIC_QUESTION
    return tuple(
        Example(f"{split}-{i}", (partial(Image.fromarray, image),), question, (task.words[value],))
        for i, (image, value) in enumerate(zip(images, attributes.of(task.attribute), strict=True))
    )
