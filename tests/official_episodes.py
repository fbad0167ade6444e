"""Small copies of DTD, Oxford Flowers-102 and CUB-200-2011 as they come from their official sites."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

TEXTURES = ("banded", "polka-dotted", "zigzagged", "woven")
BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "015.Lazuli_Bunting", "200.Common_Yellowthroat")
FLOWER_LABELS = (1, 42, 74, 102)
PICTURES = 6  # of each class in each split


def picture(path: Path) -> None:
    """A JPEG whose pixels follow from its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pick = np.random.default_rng(list(path.name.encode()))
    pixels = np.kron(pick.integers(256, size=(4, 5, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def dtd(root: Path, pictures: int = PICTURES, partition: int = 1) -> Path:
    """`images/<class>/` and the three lists of one partition."""
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for texture in TEXTURES:
        for i in range(3 * pictures):
            file = f"{texture}/{texture}_{i + 1:04d}.jpg"
            picture(root / "images" / file)
            list(lists.values())[i % 3].append(file)
    for split, files in lists.items():
        write_lines(root / "labels" / f"{split}{partition}.txt", sorted(files))
    return root


def flowers(root: Path, pictures: int = PICTURES) -> Path:
    """`jpg/`, and labels and splits as MATLAB 5 files of rows `[1, N]`: uint8 labels, uint16 ids, both from 1."""
    labels = [label for label in FLOWER_LABELS for _ in range(3 * pictures)]
    for number in range(1, len(labels) + 1):
        picture(root / "jpg" / f"image_{number:05d}.jpg")
    numbers = np.arange(1, len(labels) + 1, dtype=np.uint16)
    splits = {key: numbers[None, i::3] for i, key in enumerate(("trnid", "valid", "tstid"))}
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    savemat(root / "setid.mat", splits)
    return root


def cub(root: Path, pictures: int = PICTURES) -> Path:
    """`images/<number>.<class>/` and the four lists of `number value`."""
    images = [f"{bird}/{bird[4:]}_{i:04d}_{i + 7}.jpg" for bird in BIRDS for i in range(2 * pictures)]
    for image in images:
        picture(root / "images" / image)
    numbered(root / "images.txt", images)
    numbered(root / "classes.txt", BIRDS)
    numbered(root / "image_class_labels.txt", [1 + i // (2 * pictures) for i in range(len(images))])
    numbered(root / "train_test_split.txt", [1 - i % 2 for i in range(len(images))])
    return root


def annotations(folder: Path, root: Path, rows: int = 10, flawed: bool = False) -> Path:
    """MTV's `flower_{train,test}.json` for the pictures in `root`, `flawed` in the two ways that it is known for."""
    pick = random.Random(0)
    folder.mkdir()
    paths = sorted(str(p.relative_to(root)) for p in root.rglob("*.jpg"))
    for half, split in enumerate(("train", "test")):
        content = []
        for _ in range(rows):
            pos, neg, query = pick.sample(paths[half::2], 3)
            content.append({"pos": pos, "neg": neg, "query": query, "pos_label": "rose", "neg_label": "lotus"})
        if flawed:
            content[0]["query"] = content[0]["pos"]
            content[1]["neg"] = paths[0]
        (folder / f"flower_{split}.json").write_text(json.dumps(content))
    return folder


def numbered(path: Path, values: object) -> None:
    write_lines(path, [f"{i} {value}" for i, value in enumerate(values, 1)])


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
