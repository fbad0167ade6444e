"""`dataset=vizwiz`: VizWiz-VQA as its site gives it, `Annotations/<split>.json` with ten answers a question.

Pictures lie in `<split>/` or `Images/<split>/`. Published splits with answers: train and val.
"""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

from stv_exp.config import DatasetConfig
from stv_exp.data.entry import Entry, words_alone
from stv_exp.data.files import entries, known_split, parse_json, required, root_folder, subset
from stv_exp.data.images import picture, readable
from stv_exp.data.task import Example, Task, most_frequent_first

READS = ("root", "support_split", "eval_split", "skip_broken")

_PUBLISHED = ("train", "val")


def load(config: DatasetConfig) -> Task:
    """A seeded choice of `config.support` and `config.eval` questions; no picture is opened.

    An example's id is its picture's name: a picture has one question. Raises `StvError` where files are missing,
    malformed or without answers.
    """
    found = _found(config)
    support = _examples(found, config.support_split, config.support, config)
    evaluation = _examples(found, config.eval_split, config.eval, config)
    return Task(f"{config.name}/{config.task}", support, evaluation)


def _found(config: DatasetConfig) -> dict[str, Path]:
    """Annotations (key: split) and folders of pictures (key: `<split>/`), all there."""
    folder = root_folder(config.root, _paths(config, "").values(), config.name)
    there = {path.stem for path in folder.glob("Annotations/*.json")}
    for split in (config.support_split, config.eval_split):
        known_split(split, there.union(_PUBLISHED), config)
    images = "Images/" if (folder / "Images").is_dir() else ""
    return required(config.root, _paths(config, images), config.name)


def _paths(config: DatasetConfig, images: str) -> dict[str, str]:
    splits = (config.support_split, config.eval_split)
    return {s: f"Annotations/{s}.json" for s in splits} | {f"{s}/": f"{images}{s}/*.jpg" for s in splits}


def _examples(found: dict[str, Path], split: str, n: int, config: DatasetConfig) -> tuple[Example, ...]:
    path, folder = found[split], found[f"{split}/"]
    rows = parse_json(path, words_alone)
    examples = entries(rows, lambda row: _example(row, folder), attrgetter("id"), path, config)
    return readable(subset(examples, n, split, config), config.skip_broken)


def _example(row: Entry, folder: Path) -> Example:
    name = row.path("image")
    answers = most_frequent_first(row.answers("answers"))
    return Example(name.rpartition(".")[0] or name, (picture(f"{folder}/{name}"),), row.text("question"), answers)
