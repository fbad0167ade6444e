"""`dataset=dtd`: the Describable Textures Dataset, 47 textures in 10 partitions of train, val and test lists.

`dataset.root` is the unpacked folder `dtd` with `images/<class>/` and `labels/`.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from pathlib import Path, PurePosixPath

from stv_exp.config import DatasetConfig
from stv_exp.data.broken import sound
from stv_exp.data.entry import leaves
from stv_exp.data.episodes import episode_task, picture_example
from stv_exp.data.files import known_split, line_text, numbered_lines, required
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError

READS = ("root", "support_split", "eval_split", "skip_broken", "episode", "partition")

SPLITS = ("train", "val", "test")
PARTITIONS = 10


def load(config: DatasetConfig) -> Task:
    """Episodes or namings of partition `config.partition`; raises `StvError` on what is missing or malformed."""
    return episode_task(config, partial(_pictures, config))


def _pictures(config: DatasetConfig, split: str) -> list[Example]:
    files = _files(config)
    path = files[split]

    def make(line: tuple[int, bytes]) -> Example:
        name = line_text(path, *line)
        return picture_example(name, files["images"] / name, _texture(name, path, line[0]), config)

    return sound(numbered_lines(path), make, attrgetter("id"), path, config)


def _files(config: DatasetConfig) -> dict[str, Path]:
    if not 1 <= config.partition <= PARTITIONS:
        raise StvError(f"dataset.partition={config.partition} is none of DTD's; it must lie in 1-{PARTITIONS}.")
    splits = [known_split(split, SPLITS, config) for split in (config.support_split, config.eval_split)]
    lists = {split: f"labels/{split}{config.partition}.txt" for split in splits}
    return required(config.root, {"images": "images", **lists}, config.name)


def _texture(line: str, path: Path, number: int) -> str:
    parts = PurePosixPath(line).parts
    if len(parts) != 2 or leaves(line):
        raise StvError(f"{path} has {line!r} at line {number}, not class/picture.jpg; download it again.")
    return parts[0]
