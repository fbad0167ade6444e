"""The pictures that pretraining draws from, by family: the testbed's own, easy-VQA's train split, and emoji."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import Idefics2Processor

from stv_exp.data.drawing import ATTRIBUTES, IMAGE_SIZE
from stv_exp.data.easy_vqa import pictures, value_index
from stv_exp.data.images import open_image
from stv_exp.data.languages import (
    EASY_VQA_COLOURS,
    EASY_VQA_SHAPES,
    KINDS,
    LabelTask,
    easy_vqa_tasks,
    kind_tasks,
    shape_tasks,
)
from stv_exp.data.shapes import drawn
from stv_exp.pretrain_config import PretrainConfig
from stv_exp.testbed.emoji import drawings


@dataclass(frozen=True)
class Gallery:
    """Training pictures `[N, 64, 64, 3]` (uint8), and the index of each attribute's value `[N]`."""

    pictures: NDArray[np.uint8]
    values: dict[str, NDArray[np.int64]]


def galleries(recipe: PretrainConfig, seed: int) -> dict[str, Gallery]:
    """The training pictures of each family; raises `StvError` where easy-VQA or the emoji are missing."""
    kinds = drawings(recipe.emoji, recipe.drawings, np.random.default_rng(seed))
    attributes, shapes = drawn("train", recipe.images)
    return {
        "shapes": Gallery(shapes, {a: attributes.of(a) for a in ATTRIBUTES}),
        "easy": _easy_vqa(),
        "kinds": Gallery(kinds[0], {"kind": kinds[1]}),
    }


def tasks() -> dict[str, list[LabelTask]]:
    """The tasks over each family's pictures."""
    families = {"shapes": shape_tasks(), "easy": easy_vqa_tasks(), "kinds": kind_tasks()}
    return {family: list(own.values()) for family, own in families.items()}


def attributes() -> list[tuple[str, str, int]]:
    """Each family's attributes and how many values they have, in a fixed order."""
    easy = {"colour": EASY_VQA_COLOURS, "shape": EASY_VQA_SHAPES}
    families: dict[str, dict[str, tuple[str, ...]]] = {"shapes": ATTRIBUTES, "easy": easy, "kinds": {"kind": KINDS}}
    return [(family, a, len(values)) for family, own in families.items() for a, values in own.items()]


def _easy_vqa() -> Gallery:
    """easy-VQA's train split, each picture also mirrored."""
    found = pictures("train")
    images = [open_image(path).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC) for _, path, _ in found]
    plain = np.stack([np.asarray(image) for image in images])
    values = {a: np.array([value_index(a, known[a]) for *_, known in found]) for a in ("colour", "shape")}
    return Gallery(np.concatenate([plain, plain[:, :, ::-1]]), {a: np.tile(v, 2) for a, v in values.items()})


def pixels(pictures: NDArray[np.uint8], processor: Idefics2Processor) -> Tensor:
    """What the processor makes of pictures of the testbed's own size: `[N, 3, 64, 64]`."""
    images = processor.image_processor
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (images.image_mean, images.image_std))
    return (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - mean) / std
