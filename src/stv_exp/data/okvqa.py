"""`dataset=okvqa`: OK-VQA as its site gives it, questions and annotations in a file each, over COCO 2014 pictures.

Answers are the ten `answer` fields, which OK-VQA has stemmed and scores against, not the `raw_answer` fields.
"""

from __future__ import annotations

from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from stv_exp.config import DatasetConfig
from stv_exp.data.broken import sound
from stv_exp.data.entry import Entry, words_alone
from stv_exp.data.files import entries, known_split, parse_json, required, root_folder, subset
from stv_exp.data.images import picture, readable
from stv_exp.data.task import Example, Task, most_frequent_first
from stv_exp.errors import StvError

READS = ("root", "support_split", "eval_split", "skip_broken")

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
    path, annotations = found[f"{split} questions"], found[f"{split} annotations"]
    answers = _answers(annotations, config)
    rows = _part(path, "questions")

    def make(row: Entry) -> tuple[Any, Example]:
        key = row.identity("question_id")
        if key not in answers:
            raise StvError(
                f"{row.where} is question {key!r}, which {annotations} does not answer; download both again."
            )
        return key, _example(row, answers[key], split, found[f"{split} images"])

    asked = dict(entries(rows, make, itemgetter(0), path, config))
    if len(asked) == len(rows):
        sound(answers, partial(_check_asked, asked, path, annotations), itemgetter(0), annotations, config)
    return readable(subset(tuple(asked.values()), n, split, config), config.skip_broken)


def _answers(path: Path, config: DatasetConfig) -> dict[Any, list[str]]:
    """Ten answers by question id."""

    def make(row: Entry) -> tuple[Any, list[str]]:
        return row.identity("question_id"), row.answers("answers")

    return dict(entries(_part(path, "annotations"), make, itemgetter(0), path, config))


def _check_asked(asked: dict[Any, Example], questions: Path, annotations: Path, key: Any) -> tuple[Any]:
    if key not in asked:
        raise StvError(f"{annotations} answers question {key!r}, which {questions} lacks; download both again.")
    return (key,)


def _example(row: Entry, answers: list[str], split: str, folder: Path) -> Example:
    images = (picture(folder / _IMAGE.format(split, row.number("image_id"))),)
    name = f"{split}-{row.identity('question_id')}"
    return Example(name, images, row.text("question"), most_frequent_first(answers))


def _part(path: Path, key: str) -> Any:
    """The list of a file that also holds its licence and version; answers are read as their words alone."""
    content = parse_json(path, words_alone)
    return content.get(key) if isinstance(content, dict) else content
