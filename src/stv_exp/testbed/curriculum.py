"""Pretraining batches: pictures alone, then what they show in words, then demonstrations that share a task.

Batch i depends on the seed and i alone, so that a resumed training sees what an uninterrupted one sees.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import Idefics2Processor

from stv_exp.data.drawing import Array
from stv_exp.data.languages import GENERIC_QUESTION, LabelTask
from stv_exp.pretrain_config import PretrainConfig
from stv_exp.testbed.galleries import attributes, galleries, pixels, tasks
from stv_exp.testbed.model import IMAGE_TOKENS

_SEEN = {"shapes": 40, "easy": 36, "kinds": 20}  # pictures a step, for the vision tower alone
_SHARES = {"shapes": 0.75, "easy": 0.15, "kinds": 0.1}  # of the batches after it


class Sight(NamedTuple):
    """Pictures `[B, 3, 64, 64]` and the index of each attribute's value `[B, A]`, -100 where a family has none."""

    pixels: Tensor
    values: Tensor


class Batch(NamedTuple):
    """Token ids `[B, T]`, distinct pictures `[U, 3, 64, 64]`, which one stands where `[B, S]`, and what to predict.

    `targets` is `[B, T]`, -100 where nothing is; answers that label noise replaced still have the true target.
    """

    input_ids: Tensor
    pixels: Tensor
    pictures: Tensor
    targets: Tensor


def vocabulary() -> list[str]:
    """Every word of every question and answer, in a fixed order."""
    questions = dict.fromkeys([GENERIC_QUESTION, *(task.explicit_question for task in all_tasks())])
    return [*questions, *sorted({word for task in all_tasks() for word in task.words})]


def all_tasks() -> list[LabelTask]:
    return [task for own in tasks().values() for task in own]


class Curriculum:
    """Makes batch i: `tower_steps` of pictures, `perception_steps` of questions, then in-context sequences."""

    def __init__(self, processor: Idefics2Processor, config: PretrainConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.processor = processor
        self.galleries = galleries(config, seed)
        self.tasks = tasks()
        convert = processor.tokenizer.convert_tokens_to_ids
        fake = processor.fake_image_token
        self.picture_ids = convert([fake, *[processor.image_token] * IMAGE_TOKENS, fake])
        self.newline = convert("\n")
        self.generic = convert(GENERIC_QUESTION)
        self.questions = {t.name: convert(t.explicit_question) for t in all_tasks()}
        self.words = {t.name: np.array(convert(list(t.words))) for t in all_tasks()}

    def batch(self, index: int) -> Sight | Batch:
        """Batch `index` of the training."""
        rng = np.random.default_rng((self.seed, index))
        if index < self.config.tower_steps:
            return self._sight(rng)
        family = rng.choice(list(_SHARES), p=list(_SHARES.values()))
        perceives = index < self.config.tower_steps + self.config.perception_steps
        return self._perception(family, rng) if perceives else self._context(family, rng)

    def _sight(self, rng: np.random.Generator) -> Sight:
        """Pictures of all families; what a family does not have is not to be told."""
        chosen = {family: rng.integers(len(self.galleries[family].pictures), size=n) for family, n in _SEEN.items()}
        shown = np.concatenate([self.galleries[family].pictures[rows] for family, rows in chosen.items()])
        columns = [
            np.concatenate(
                [
                    self.galleries[f].values[attribute][rows] if f == family else np.full(len(rows), -100)
                    for f, rows in chosen.items()
                ]
            )
            for family, attribute, _ in attributes()
        ]
        return Sight(pixels(shown, self.processor), _long(np.stack(columns, 1)))

    def _perception(self, family: str, rng: np.random.Generator) -> Batch:
        """One picture, then an explicit question about each of its attributes in a language drawn at random."""
        gallery = self.galleries[family]
        n = 2 * self.config.sequences
        chosen = rng.integers(len(gallery.pictures), size=n)
        ids = np.tile(self.picture_ids, (n, 1))
        targets = np.full_like(ids, -100)
        for attribute in rng.permutation(list(gallery.values)):
            tasks = [t for t in self.tasks[family] if t.attribute == attribute and t.group != "many"]
            asked = [tasks[i] for i in rng.integers(len(tasks), size=n)]
            question = np.array([self.questions[t.name] for t in asked])
            values = gallery.values[attribute][chosen]
            answer = np.array([self.words[t.name][v] for t, v in zip(asked, values, strict=True)])
            ids, targets = self._ask(ids, targets, question, answer, answer)
        return Batch(_long(ids), self._pixels(family, chosen), torch.arange(n)[:, None], _long(targets))

    def _context(self, family: str, rng: np.random.Generator) -> Batch:
        """Sequences of examples of one task each, mostly with the generic question; some show wrong labels.

        The sequences of a batch share their pictures, which makes the vision tower's work a third.
        """
        config, gallery = self.config, self.galleries[family]
        b, s = config.sequences, config.examples
        chosen = rng.integers(len(gallery.pictures), size=config.distinct_images)
        shown = np.stack([rng.choice(config.distinct_images, s, replace=False) for _ in range(b)])
        tasks = self._draw_tasks(family, rng)
        explicit = rng.random(b) < np.where([t.group == "many" for t in tasks], config.explicit_many, config.explicit)
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
        return Batch(_long(ids), self._pixels(family, chosen), _long(shown), _long(targets))

    def _draw_tasks(self, family: str, rng: np.random.Generator) -> list[LabelTask]:
        """A task a sequence; where a family has the *many*, their share of the sequences is `many_sequences`."""
        own = [t for t in self.tasks[family] if t.group != "many"]
        many = [t for t in self.tasks[family] if t.group == "many"] or own
        drawn = rng.random(self.config.sequences) < self.config.many_sequences
        return [pool[rng.integers(len(pool))] for pool in (many if one else own for one in drawn)]

    def _pixels(self, family: str, chosen: Array) -> Tensor:
        return pixels(self.galleries[family].pictures[chosen], self.processor)

    def _ask(self, ids: Array, targets: Array, question: Array, answer: Array, true: Array) -> tuple[Array, Array]:
        """Append question, answer and newline to `ids`; the question's token predicts the true answer."""
        newline = np.full_like(question, self.newline)
        nothing = np.full_like(question, -100)
        ids = np.concatenate([ids, np.stack([question, answer, newline], 1)], 1)
        return ids, np.concatenate([targets, np.stack([true, newline, nothing], 1)], 1)


def _long(array: Array) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))
