"""Small copies of visual question sets in the layout that their sites give."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

OBJECTS = ("red cup", "blue key", "dog", "unanswerable")


def vizwiz(root: Path, n: int, images: str = "") -> Path:
    """`n` questions a split; `images` is the folder above the pictures' own. Returns `root`."""
    for split in ("train", "val"):
        rows = [
            {
                "image": f"VizWiz_{split}_{i:08d}.jpg",
                "question": f"What is this? {i}",
                "answers": [{"answer": a, "answer_confidence": "yes"} for a in answers],
                "answer_type": "other",
                "answerable": int(answers[0] != "unanswerable"),
            }
            for i, answers in enumerate(_answers(n, split))
        ]
        _write(root / "Annotations" / f"{split}.json", json.dumps(rows))
        for i, row in enumerate(rows):
            picture(root / images / split / str(row["image"]), i)
    return root


def okvqa(root: Path, n: int) -> Path:
    """`n` questions a split, two on each picture, with the header that the files have. Returns `root`."""
    for split in ("train2014", "val2014"):
        keys = [{"image_id": 100 + i // 2, "question_id": 1000 + i} for i in range(n)]
        questions = [key | {"question": f"What sport is played here? {i}"} for i, key in enumerate(keys)]
        annotations = [
            key | {"answers": [_annotated(a, i) for i, a in enumerate(answers, 1)], "question_type": "four"}
            for key, answers in zip(keys, _answers(n, split), strict=True)
        ]
        header = {"info": {"version": "1.1"}, "license": {"name": "CC"}, "data_subtype": split}
        _write(root / f"OpenEnded_mscoco_{split}_questions.json", json.dumps(header | {"questions": questions}))
        _write(root / f"mscoco_{split}_annotations.json", json.dumps(header | {"annotations": annotations}))
        for key in keys:
            picture(root / split / f"COCO_{split}_{key['image_id']:012d}.jpg", key["image_id"])
    return root


def vqa_jsonl(root: Path, n: int) -> Path:
    """`n` questions a split, every other with a list of answers. Returns `root`."""
    for number, split in enumerate(("train", "val")):
        lines = []
        for i, answers in enumerate(_answers(n, split)):
            row = {"image": f"data/{split}/{i}.jpg", "question": f"What is this? {i}", "question_id": 1000 * number + i}
            lines.append(json.dumps(row | {"answer": answers if i % 2 else answers[0]}))
            picture(root / str(row["image"]), i)
        _write(root / f"{split}.jsonl", "\n".join(lines) + "\n")
    return root


def picture(path: Path, seed: int) -> None:
    """A small JPEG of noise, other for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=90)


def _answers(n: int, split: str) -> Iterator[list[str]]:
    """Ten answers a question: one that most people gave, not at the front."""
    pick = random.Random(split)
    for _ in range(n):
        usual, other = pick.sample(OBJECTS, 2)
        yield [other] * 3 + [usual] * 6 + ["something else"]


def _annotated(answer: str, number: int) -> dict[str, object]:
    return {"answer_id": number, "raw_answer": f"{answer}s", "answer_confidence": "yes", "answer": answer}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
