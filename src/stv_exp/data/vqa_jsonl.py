"""`dataset=vqa_jsonl`: visual questions in the layout of the Qwen-VL and MTV code, `<split>.jsonl`.

A line is `{"image", "question", "answer", "question_id"}`: a path below `dataset.root`, and one answer or a list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stv_exp.config import DatasetConfig
from stv_exp.data.files import answered, entries, known_split, read_json_lines, required, root_folder, subset, unique
from stv_exp.data.images import picture, readable
from stv_exp.data.task import Example, Task, most_frequent_first


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
    rows = entries(read_json_lines(path), ("image", "question", "answer", "question_id"), path)
    unique((row["question_id"] for row in rows), path)
    answered(((row["question_id"], _answers(row)) for row in rows), path)
    chosen = subset(rows, n, split, config)
    return readable([_example(row, split, path.parent) for row in chosen], config.skip_broken)


def _example(row: dict[str, Any], split: str, folder: Path) -> Example:
    image = picture(folder / row["image"])
    return Example(f"{split}-{row['question_id']}", (image,), row["question"], most_frequent_first(_answers(row)))


def _answers(row: dict[str, Any]) -> list[str]:
    given = row["answer"]
    return [str(answer) for answer in (given if isinstance(given, list) else [given]) if answer is not None]
