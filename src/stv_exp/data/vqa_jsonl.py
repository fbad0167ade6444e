"""`dataset=vqa_jsonl`: visual questions in the layout of the Qwen-VL and MTV code, `<split>.jsonl`.

A line is `{"image", "question", "answer", "question_id"}`: a path below `dataset.root`, and one answer or a list.
"""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

from stv_exp.config import DatasetConfig
from stv_exp.data.broken import sound
from stv_exp.data.entry import Entry
from stv_exp.data.files import known_split, line_entry, numbered_lines, required, root_folder, subset
from stv_exp.data.images import picture, readable
from stv_exp.data.task import Example, Task, most_frequent_first

READS = ("root", "support_split", "eval_split", "skip_broken")


def load(config: DatasetConfig) -> Task:
    """A seeded choice of `config.support` and `config.eval` questions; no picture is opened.

    An example's id is its split and question id. Raises `StvError` where files are missing, malformed or without
    answers.
    """
    splits = (config.support_split, config.eval_split)
    paths = {split: f"{split}.jsonl" for split in splits}
    folder = root_folder(config.root, paths.values(), config.name)
    if there := {path.stem for path in folder.glob("*.jsonl")}:
        for split in splits:
            known_split(split, there, config)
    found = required(config.root, paths, config.name)
    support = _examples(found[config.support_split], config.support_split, config.support, config)
    evaluation = _examples(found[config.eval_split], config.eval_split, config.eval, config)
    return Task(f"{config.name}/{config.task}", support, evaluation)


def _examples(path: Path, split: str, n: int, config: DatasetConfig) -> tuple[Example, ...]:
    def make(line: tuple[int, bytes]) -> Example:
        return _example(line_entry(path, *line), split, path.parent)

    found = sound(numbered_lines(path), make, attrgetter("id"), path, config)
    return readable(subset(found, n, split, config), config.skip_broken)


def _example(row: Entry, split: str, folder: Path) -> Example:
    images = (picture(f"{folder}/{row.path('image')}"),)
    answers = most_frequent_first(row.answers("answer"))
    return Example(f"{split}-{row.identity('question_id')}", images, row.text("question"), answers)
