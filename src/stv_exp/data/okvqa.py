"""`dataset=okvqa`: OK-VQA as its site gives it, questions and annotations in a file each, over COCO 2014 pictures.

Answers are the ten `answer` fields, which OK-VQA has stemmed and scores against, not the `raw_answer` fields.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stv_exp.config import DatasetConfig
from stv_exp.data.files import answered, entries, known_split, read_json, required, root_folder, subset, unique
from stv_exp.data.images import picture, readable
from stv_exp.data.task import Example, Task, most_frequent_first
from stv_exp.errors import StvError

_PUBLISHED = ("train2014", "val2014")
_QUESTIONS = "OpenEnded_mscoco_{}_questions.json"
_ANNOTATIONS = "mscoco_{}_annotations.json"
_IMAGE = "COCO_{}_{:012d}.jpg"


def load(config: DatasetConfig) -> Task:
    """A seeded choice of `config.support` and `config.eval` questions; no picture is opened.

    An example's id is its split and question id. Raises `StvError` where files are missing, malformed, without answers
    or where a question and its annotation are not both there.
    """
    found = _found(config)
    support = _examples(found, config.support_split, config.support, config)
    evaluation = _examples(found, config.eval_split, config.eval, config)
    return Task(f"{config.name}/{config.task}", support, evaluation)


def _found(config: DatasetConfig) -> dict[str, Path]:
    """By split and kind: `<split> questions`, `<split> annotations` and the folder `<split> images`, all there."""
    paths: dict[str, str] = {}
    for split in (config.support_split, config.eval_split):
        paths[f"{split} questions"] = _QUESTIONS.format(split)
        paths[f"{split} annotations"] = _ANNOTATIONS.format(split)
        paths[f"{split} images"] = f"{split}/COCO_{split}_*.jpg"
    folder = root_folder(config.root, paths.values(), config.name)
    before, after = _QUESTIONS.split("{}")
    there = {p.name.removeprefix(before).removesuffix(after) for p in folder.glob(_QUESTIONS.format("*"))}
    for split in (config.support_split, config.eval_split):
        known_split(split, there.union(_PUBLISHED), config)
    return required(config.root, paths, config.name)


def _examples(found: dict[str, Path], split: str, n: int, config: DatasetConfig) -> tuple[Example, ...]:
    path = found[f"{split} questions"]
    questions = entries(_part(path, "questions"), ("question_id", "image_id", "question"), path)
    unique((row["question_id"] for row in questions), path)
    answers = _answers(found[f"{split} annotations"])
    _match({row["question_id"] for row in questions}, set(answers), path, found[f"{split} annotations"])
    chosen = subset(questions, n, split, config)
    folder = found[f"{split} images"]
    return readable([_example(row, answers, split, folder) for row in chosen], config.skip_broken)


def _answers(path: Path) -> dict[Any, list[str]]:
    """Ten answers by question id."""
    rows = entries(_part(path, "annotations"), ("question_id", "answers"), path)
    unique((row["question_id"] for row in rows), path)
    answered(((row["question_id"], row["answers"]) for row in rows), path)
    return {row["question_id"]: row["answers"] for row in rows}


def _match(asked: set[Any], answered: set[Any], questions: Path, annotations: Path) -> None:
    if asked != answered:
        raise StvError(
            f"{questions} has {len(asked)} questions and {annotations} {len(answered)} annotations, and question "
            f"{min(asked ^ answered)} is in one of them only; download both again."
        )


def _example(row: dict[str, Any], answers: dict[Any, list[str]], split: str, folder: Path) -> Example:
    key = row["question_id"]
    image = picture(folder / _IMAGE.format(split, row["image_id"]))
    return Example(f"{split}-{key}", (image,), row["question"], most_frequent_first(answers[key]))


def _part(path: Path, key: str) -> Any:
    """The list of a file that also holds its licence and version; answers are read as their words alone."""
    content = read_json(path, lambda entry: entry.get("answer", entry))
    return content.get(key) if isinstance(content, dict) else content
