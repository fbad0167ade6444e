"""What a `Where` that asks the model asks: answers in prompts of which one location is replaced, all locations in turn.

A prompt is run once; its locations are branches behind it, in as many forwards as keep the branches within a bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from stv_exp.artefacts.effects import Effects
from stv_exp.artefacts.scan import Scan
from stv_exp.config import Config
from stv_exp.data.prompts import Prompt, make_prompt
from stv_exp.data.task import Task
from stv_exp.methods.guard import blamed, checked_effects
from stv_exp.methods.method import Method
from stv_exp.models.backbone import Backbone
from stv_exp.models.edits import Edit, Insertion
from stv_exp.models.prefix import PrefixCache
from stv_exp.models.scorer import Scorer
from stv_exp.stages.features import demonstration_features
from stv_exp.stages.predict import predict_in_order
from stv_exp.stages.scan import with_demonstrations
from stv_exp.stages.trainer import Stage

BRANCHES = 256  # in one forward, of all its prompts together
ROWS = 32  # where each has a copy of the prompt


def measure(backbone: Backbone, task: Task, scan: Scan, config: Config) -> Effects:
    """What `method.where` asks about the locations of a scan."""
    where = Method.of(config).where
    with blamed(where):
        found = where.measure(Asked(backbone, task, config), scan)
    return Effects(checked_effects(where, found, scan.grid))


class Asked:
    """The `Probe` that a `Where` is handed."""

    def __init__(self, backbone: Backbone, task: Task, config: Config) -> None:
        self.backbone = backbone
        self.task = task
        self.config = config

    def prompts(self, n: int) -> list[Prompt]:
        """Each query with an id of its own: where it comes twice, other demonstrations stand before it."""
        features = demonstration_features(self.backbone, self.task, self.config)
        drawn = with_demonstrations(self.task, self.config, n, "effects", features)
        queries = [replace(prompt.query, id=f"{prompt.query.id} ({i})") for i, prompt in enumerate(drawn)]
        return [make_prompt(p.template, q, p.demonstrations) for p, q in zip(drawn, queries, strict=True)]

    def probabilities(self, prompts: Sequence[Prompt], vectors: Tensor) -> tuple[Tensor, Tensor]:
        """See `Probe.probabilities`."""
        module = Replacement(self.backbone, vectors.flatten(0, -2), self.config)
        found = predict_in_order(module, prompts, self.config.trainer)
        return found[:, 1:].unflatten(1, vectors.shape[:-1]), found[:, 0]


class Replacement(Stage):
    """Probabilities `[Q, 1 + N]` of the answers' first tokens: as the prompts are, and with one of N replaced."""

    stage = "effects"

    def __init__(self, backbone: Backbone, vectors: Tensor, config: Config) -> None:
        super().__init__()
        self.backbone = backbone
        self.site = config.method.site
        self.locations = backbone.site(self.site).all_locations()
        self.vectors = vectors
        self.config = config
        self.scorer = Scorer(backbone, config.policy.cache_bytes)

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> Tensor:
        self.scorer.prefixes = PrefixCache(self.backbone, self.config.policy.cache_bytes)  # none is asked again
        before = self._probabilities(batch, slice(0))
        size = max(1, (BRANCHES if self.scorer.way == "tree" else ROWS) // len(batch))
        starts = range(0, len(self.locations), size)
        return torch.cat([before, *(self._probabilities(batch, slice(at, at + size)) for at in starts)], 1)

    def _probabilities(self, batch: list[Prompt], which: slice) -> Tensor:
        """`[Q, S]` with each of S locations replaced alone; `[Q, 1]` with nothing where S is 0."""
        answers = [self.backbone.encode_answer(p)[:1] for p in batch]
        insertion = alone(self.locations[which], self.vectors[which], self.site)
        return self.scorer.score(batch, answers, insertion, "prompt")[..., 0].exp().cpu()


def alone(locations: Tensor, vectors: Tensor, site: str) -> Insertion:
    """S candidates, each of which replaces one of S `locations` by its vector of `vectors [S, D]`."""
    if not len(locations):
        return Insertion(locations, vectors[None, None], site=site)
    active = torch.eye(len(locations), dtype=torch.bool)[None]
    return Edit().insertion(locations, vectors.expand(*active.shape, -1), active, site)
