"""Pretraining batches: first what a picture shows, then sequences of demonstrations that share a task.

Batch i depends on the seed and i alone, so that a resumed training sees what an uninterrupted one sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Idefics2Processor

from stv_exp.data.drawing import ATTRIBUTES, Array
from stv_exp.data.easy_vqa import pictures, value_index
from stv_exp.data.images import open_image
from stv_exp.data.languages import GENERIC_QUESTION, LabelTask, easy_vqa_tasks, shape_tasks
from stv_exp.data.shapes import drawn
from stv_exp.pretrain_config import PretrainConfig
from stv_exp.testbed.model import IMAGE_TOKENS


@dataclass(frozen=True)
class Gallery:
    """Training pictures as the processor gives them `[N, 3, 32, 32]` and their value index by attribute `[N]`."""

    pixels: Tensor
    values: dict[str, NDArray[np.int64]]


class Batch(NamedTuple):
    """Token ids `[B, T]`, distinct pictures `[U, 3, 32, 32]`, which one stands where `[B, S]`, and what to predict.

    `targets` is `[B, T]`, -100 where nothing is; answers that label noise replaced still have the true target.
    """

    input_ids: Tensor
    pixels: Tensor
    pictures: Tensor
    targets: Tensor


def vocabulary() -> list[str]:
    """Every word of every question and answer, in a fixed order."""
    tasks = all_tasks()
    questions = [GENERIC_QUESTION, *(task.explicit_question for task in tasks)]
    return questions + sorted({word for task in tasks for word in task.words})


def all_tasks() -> list[LabelTask]:
    return [*shape_tasks().values(), *easy_vqa_tasks().values()]


def galleries(processor: Idefics2Processor, n: int) -> dict[str, Gallery]:
    """Training pictures by family: `n` drawn ones, and easy-VQA's train split."""
    attributes, images = drawn("train", n)
    shapes = Gallery(_processed(processor, list(images)), {a: attributes.of(a) for a in ATTRIBUTES})
    easy = pictures("train")
    values = {a: np.array([value_index(a, known[a]) for _, _, known in easy]) for a in ("colour", "shape")}
    return {"shapes": shapes, "easy": Gallery(_processed(processor, [open_image(p) for _, p, _ in easy]), values)}


def _processed(processor: Idefics2Processor, images: list[object]) -> Tensor:
    chunks = [images[i : i + 1000] for i in range(0, len(images), 1000)]
    return torch.cat([processor.image_processor([c], return_tensors="pt")["pixel_values"][0] for c in chunks])


class Curriculum:
    """Makes batch i: perception for the first `perception_steps`, then in-context sequences."""

    def __init__(self, processor: Idefics2Processor, config: PretrainConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.galleries = galleries(processor, config.images)
        self.tasks = {"shapes": list(shape_tasks().values()), "easy": list(easy_vqa_tasks().values())}
        convert = processor.tokenizer.convert_tokens_to_ids
        fake = processor.fake_image_token
        self.picture_ids = convert([fake, *[processor.image_token] * IMAGE_TOKENS, fake])
        self.newline = convert("\n")
        self.generic = convert(GENERIC_QUESTION)
        self.questions = {t.name: convert(t.explicit_question) for t in all_tasks()}
        self.words = {t.name: np.array(convert(list(t.words))) for t in all_tasks()}

    def batch(self, index: int) -> Batch:
        """Batch `index` of the training."""
        rng = np.random.default_rng((self.seed, index))
        easy = rng.random() < len(self.tasks["easy"]) / len(all_tasks())
        family = "easy" if easy else "shapes"
        return self._perception(family, rng) if index < self.config.perception_steps else self._context(family, rng)

    def _perception(self, family: str, rng: np.random.Generator) -> Batch:
        """One picture, then an explicit question about each of its attributes in a language drawn at random."""
        gallery = self.galleries[family]
        n = 2 * self.config.sequences
        chosen = rng.integers(len(gallery.pixels), size=n)
        ids = np.tile(self.picture_ids, (n, 1))
        targets = np.full_like(ids, -100)
        for attribute in rng.permutation(list(gallery.values)):
            tasks = [t for t in self.tasks[family] if t.attribute == attribute]
            asked = [tasks[i] for i in rng.integers(len(tasks), size=n)]
            question = np.array([self.questions[t.name] for t in asked])
            values = gallery.values[attribute][chosen]
            answer = np.array([self.words[t.name][v] for t, v in zip(asked, values, strict=True)])
            ids, targets = self._ask(ids, targets, question, answer, answer)
        return Batch(_long(ids), gallery.pixels[chosen], torch.arange(n)[:, None], _long(targets))

    def _context(self, family: str, rng: np.random.Generator) -> Batch:
        """Sequences of examples of one task each, mostly with the generic question; some show wrong labels.

        The sequences of a batch share their pictures, which makes the vision tower's work a third.
        """
        config, gallery = self.config, self.galleries[family]
        b, s = config.sequences, config.examples
        chosen = rng.integers(len(gallery.pixels), size=config.distinct_images)
        shown = np.stack([rng.choice(config.distinct_images, s, replace=False) for _ in range(b)])
        tasks = [self.tasks[family][i] for i in rng.integers(len(self.tasks[family]), size=b)]
        explicit = rng.random(b) < config.explicit
        question = np.where(explicit, [self.questions[t.name] for t in tasks], self.generic)
        noise = np.where(rng.random(b) < config.noisy_sequences, rng.uniform(0, config.max_noise, b), 0)
        values = np.stack([gallery.values[t.attribute][chosen[row]] for t, row in zip(tasks, shown, strict=True)])
        wrong = rng.random((b, s)) < noise[:, None]
        ids, targets = np.zeros((b, 0), dtype=int), np.zeros((b, 0), dtype=int)
        for i in range(s):
            true = np.array([self.words[t.name][v] for t, v in zip(tasks, values[:, i], strict=True)])
            other = np.array([rng.choice(self.words[t.name]) for t in tasks])
            ids = np.concatenate([ids, np.tile(self.picture_ids, (b, 1))], 1)
            targets = np.concatenate([targets, np.full((b, len(self.picture_ids)), -100)], 1)
            ids, targets = self._ask(ids, targets, question, np.where(wrong[:, i], other, true), true)
        return Batch(_long(ids), gallery.pixels[chosen], _long(shown), _long(targets))

    def _ask(self, ids: Array, targets: Array, question: Array, answer: Array, true: Array) -> tuple[Array, Array]:
        """Append question, answer and newline to `ids`; the question's token predicts the true answer."""
        newline = np.full_like(question, self.newline)
        nothing = np.full_like(question, -100)
        ids = np.concatenate([ids, np.stack([question, answer, newline], 1)], 1)
        return ids, np.concatenate([targets, np.stack([true, newline, nothing], 1)], 1)


def _long(array: Array) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))
