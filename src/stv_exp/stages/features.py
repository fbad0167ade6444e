"""What demonstration choice compares: the words of questions, and pictures as the frozen backbone sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stv_exp.config import Config
from stv_exp.data.demonstrations import Features
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError
from stv_exp.models.backbone import Backbone
from stv_exp.stages.predict import predict
from stv_exp.stages.trainer import Stage

Rows = NDArray[np.float32]
_BUCKETS = 2048  # of hashed words


def demonstration_features(backbone: Backbone, task: Task, config: Config, queries: Sequence[Example] = ()) -> Features:
    """Features of the support and of `queries` from elsewhere that `demonstrations.choice` needs; empty if none.

    Raises `StvError` where an example has no picture or the model has no picture features.
    """
    examples, fitted = (*task.support, *queries), len(task.support)
    choice = config.demonstrations.choice
    blocks = []
    if choice in ("nearest_question", "facility_location"):
        blocks.append(question_features([e.question for e in examples], fitted))
    if choice == "nearest_image" or (choice == "facility_location" and task.support[0].images):
        blocks.append(image_features(backbone, examples, fitted, config))
    if not blocks:
        return {}
    rows = np.concatenate(blocks, axis=1) / np.float32(len(blocks) ** 0.5)
    return {example.id: row for example, row in zip(examples, rows, strict=True)}


def question_features(questions: Sequence[str], fitted: int) -> Rows:
    """Unit rows `[N, 2048]` of word counts, hashed, times the inverse document frequency in the first `fitted`."""
    counts = np.zeros((len(questions), _BUCKETS), dtype=np.float32)
    for row, question in zip(counts, questions, strict=True):
        for word in re.findall(r"\w+", question.casefold()):
            row[crc32(word.encode()) % _BUCKETS] += 1
    containing = (counts[:fitted] > 0).sum(0)
    counts *= (np.log((1 + fitted) / (1 + containing)) + 1).astype(np.float32)
    return _unit(counts)


def image_features(backbone: Backbone, examples: Sequence[Example], fitted: int, config: Config) -> Rows:
    """Unit rows `[N, F]`: the vision tower's output as the language model reads it, mean over places and pictures.

    The mean of the first `fitted` is taken off: what all pictures share would else make them all alike.
    """
    if not backbone.pictures.readable:
        raise StvError(
            f"demonstrations.choice={config.demonstrations.choice} compares picture features, and {backbone.name} has "
            "none (no get_image_features); choose nearest_question, balanced or random."
        )
    rows = _pictures(backbone, examples, config)
    return _unit(rows - rows[:fitted].mean(0))


class PictureFeatures(Stage):
    """Mean features `[B, F]` of each example's pictures, in float32 on the CPU."""

    stage = "picture features"

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def predict_step(self, batch: list[Example], batch_idx: int) -> Tensor:
        shown = [example.pictures for example in batch]
        seen = self.backbone.pictures.features([*chain(*shown)])
        pooled = torch.stack([one.pooled.float().mean(0) for one in seen])
        return torch.stack([own.mean(0) for own in pooled.split([len(pictures) for pictures in shown])])


def _pictures(backbone: Backbone, examples: Sequence[Example], config: Config) -> Rows:
    """Mean features of each example's pictures `[N, F]`."""
    for example in examples:
        if not example.images:
            raise StvError(
                f"demonstrations.choice={config.demonstrations.choice} compares pictures, and example {example.id} has "
                "none; choose nearest_question, balanced or random."
            )
    found: Rows = torch.cat(predict(PictureFeatures(backbone), examples, config.trainer)).numpy()
    return found


def _unit(rows: Rows) -> Rows:
    """Rows of length 1; a row of zeros stays one."""
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-8)).astype(np.float32)
