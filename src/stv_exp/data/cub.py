"""`dataset=cub`: Caltech-UCSD Birds-200-2011, 11,788 pictures of 200 birds; the official splits train and test.

`dataset.root` is the unpacked folder `CUB_200_2011` with `images/` and the lists beside it.
"""

from __future__ import annotations

from functools import partial
from operator import itemgetter
from pathlib import Path

from stv_exp.config import DatasetConfig
from stv_exp.data.broken import sound
from stv_exp.data.entry import ADVICE, leaves
from stv_exp.data.episodes import episode_task, picture_example
from stv_exp.data.files import known_split, line_text, numbered_lines, required
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError

READS = ("root", "support_split", "eval_split", "skip_broken", "episode")

_SPLITS = {"train": "1", "test": "0"}  # is_training_image of train_test_split.txt
_FILES = {
    "pictures": "images",
    "images": "images.txt",
    "labels": "image_class_labels.txt",
    "classes": "classes.txt",
    "splits": "train_test_split.txt",
}


def load(config: DatasetConfig) -> Task:
    """Episodes or namings; raises `StvError` on what is missing or does not agree."""
    return episode_task(config, partial(_pictures, config))


def _pictures(config: DatasetConfig, split: str) -> list[Example]:
    side = _SPLITS[known_split(split, _SPLITS, config)]
    files = required(config.root, _FILES, config.name)
    tables = {key: _table(path, config) for key, path in files.items() if key != "pictures"}

    def make(key: str) -> tuple[str, Example]:
        image = tables["images"][key]
        if complaint := leaves(image):
            raise StvError(f"{files['images']} has {image!r} as picture {key}, {complaint}; {ADVICE}.")
        found = {table: _found(tables[table], key, files[table]) for table in ("labels", "splits")}
        label = _found(tables["classes"], found["labels"], files["classes"], f"the class of picture {key},")
        return found["splits"], picture_example(image, files["pictures"] / image, _bird(label), config)

    made = sound(tables["images"], make, lambda result: result[1].id, files["images"], config)
    return [example for where, example in made if where == side]


def _table(path: Path, config: DatasetConfig) -> dict[str, str]:
    """Lines `number value`; a line that is none, or whose number was there before, is broken."""

    def make(line: tuple[int, bytes]) -> tuple[str, str]:
        number, *value = line_text(path, *line).split(maxsplit=1)
        if not value:
            raise StvError(f"{path} has no number and value at line {line[0]}; download it again.")
        return number, value[0]

    return dict(sound(numbered_lines(path), make, itemgetter(0), path, config))


def _found(table: dict[str, str], key: str, path: Path, what: str = "picture") -> str:
    if key not in table:
        raise StvError(f"{path} has no line for {what} {key}; download it again or set dataset.skip_broken=true.")
    return table[key]


def _bird(name: str) -> str:
    """`001.Black_footed_Albatross` is a Black footed Albatross."""
    return name.split(".", 1)[-1].replace("_", " ")
