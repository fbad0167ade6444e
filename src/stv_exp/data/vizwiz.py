"""`dataset=vizwiz`: VizWiz-VQA as its site gives it, `Annotations/<split>.json` with ten answers a question.

Pictures lie in `<split>/` or `Images/<split>/`. Published splits with answers: train and val.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stv_exp.config import DatasetConfig
from stv_exp.data.files import answered, entries, known_split, read_json, required, root_folder, subset, unique
from stv_exp.data.images import picture, readable
from stv_exp.data.task import Example, Task, most_frequent_first

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
    path = found[split]
    rows = entries(read_json(path, _answer), ("image", "question", "answers"), path)
    unique((row["image"] for row in rows), path)
    answered(((row["image"], row["answers"]) for row in rows), path)
    chosen = subset(rows, n, split, config)
    return readable([_example(row, found[f"{split}/"]) for row in chosen], config.skip_broken)


def _example(row: dict[str, Any], folder: Path) -> Example:
    name = row["image"]
    key = name.rpartition(".")[0] or name
    return Example(key, (picture(folder / name),), row["question"], most_frequent_first(row["answers"]))


def _answer(entry: dict[str, Any]) -> Any:
    """An answer without its confidence, as it is read: of 100,000 questions they are a million objects."""
    return entry.get("answer", entry)
