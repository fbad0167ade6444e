"""`dataset=cub`: Caltech-UCSD Birds-200-2011, 11,788 pictures of 200 birds; the official splits train and test.

`dataset.root` is the unpacked folder `CUB_200_2011` with `images/` and the lists beside it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from stv_exp.config import DatasetConfig
from stv_exp.data.episodes import episode_task, picture_example
from stv_exp.data.files import known_split, read_lines, required, unique
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError

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
    images, classes = _table(files["images"]), _table(files["classes"])
    labels, sides = (_table_for(images, files[key], files["images"]) for key in ("labels", "splits"))
    if unknown := set(labels.values()) - set(classes):
        raise StvError(
            f"{files['labels']} has the class {min(unknown)}, which {files['classes']} lacks; download both again."
        )
    return [
        picture_example(image, files["pictures"] / image, _bird(classes[labels[key]]), config)
        for key, image in images.items()
        if sides[key] == side
    ]


def _table(path: Path) -> dict[str, str]:
    """Lines `number value`; raises `StvError` with the file and the line that is none, or the number seen twice."""
    rows = [line.split(maxsplit=1) for line in read_lines(path)]
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise StvError(f"{path} has no number and value at line {number}; download it again.")
    unique((row[0] for row in rows), path)
    return dict(rows)


def _table_for(images: dict[str, str], path: Path, listed: Path) -> dict[str, str]:
    """A table with one line for each of `images`, which `listed` has."""
    table = _table(path)
    if table.keys() != images.keys():
        raise StvError(
            f"{path} has {len(table)} lines for {len(images)} pictures in {listed}, or other numbers; "
            "download both again."
        )
    return table


def _bird(name: str) -> str:
    """`001.Black_footed_Albatross` is a Black footed Albatross."""
    return name.split(".", 1)[-1].replace("_", " ")
