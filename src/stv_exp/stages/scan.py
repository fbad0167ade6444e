"""Sensitivity scan (STV, step 1): head activations with and without demonstrations, and how they differ."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stv_exp.artefact import Artefact
from stv_exp.config import Config
from stv_exp.data.demonstrations import DemonstrationSampler, Features
from stv_exp.data.prompts import Prompt, longest_first, make_prompt
from stv_exp.data.task import Task
from stv_exp.errors import StvError
from stv_exp.models.backbone import Backbone
from stv_exp.stages.features import demonstration_features
from stv_exp.stages.trainer import Stage, predict

_SHARE = 0.5  # of the support for each context: facility location would else choose the same one for all


@dataclass(frozen=True, eq=False)
class Scan(Artefact):
    """Head activations `[T, L, H, D]` of T queries with demonstrations and alone, and the ids that were used.

    They keep the model's dtype, so that a half-precision model's take half the memory and no rounding is added.
    """

    with_demonstrations: Tensor
    alone: Tensor
    query_ids: list[str]
    demonstration_ids: list[list[str]]

    @property
    def deltas(self) -> Tensor:
        """What the demonstrations change, `[T, L, H, D]`, in float32."""
        return self.with_demonstrations.float() - self.alone.float()

    def sensitivity(self, kind: str) -> Tensor:
        """Sensitivity `[L, H]`; `kind` is one of `SENSITIVITIES`."""
        return SENSITIVITIES[kind](self)

    def top_locations(self, kind: str, k: int) -> Tensor:
        """The `k` most sensitive (layer, head) pairs, most sensitive first, `[k, 2]`."""
        sensitivity = self.sensitivity(kind)
        best = sensitivity.flatten().topk(k).indices
        return torch.stack([best // sensitivity.shape[1], best % sensitivity.shape[1]], 1)


def _l2(scan: Scan) -> Tensor:
    """Mean norm of the deltas: the paper's."""
    return scan.deltas.norm(dim=-1).mean(0)


def _mean_delta(scan: Scan) -> Tensor:
    """Norm of the mean delta: only what all queries share counts."""
    return scan.deltas.mean(0).norm(dim=-1)


def _snr(scan: Scan) -> Tensor:
    """Norm of the mean delta over the root mean square deviation from it."""
    mean = scan.deltas.mean(0)
    spread = (scan.deltas - mean).pow(2).sum(-1).mean(0).sqrt()
    return mean.norm(dim=-1) / (spread + 1e-8)


def _cosine(scan: Scan) -> Tensor:
    """Mean cosine distance between the activations with demonstrations and alone."""
    return 1 - torch.cosine_similarity(scan.with_demonstrations.float(), scan.alone.float(), dim=-1).mean(0)


SENSITIVITIES: dict[str, Callable[[Scan], Tensor]] = {
    "l2": _l2,
    "mean_delta": _mean_delta,
    "snr": _snr,
    "cosine": _cosine,
}


class SensitivityScan(Stage):
    """Captures a batch of prompts."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> Tensor:
        return self.backbone.capture(self.backbone.encode(batch))


def scan(backbone: Backbone, task: Task, config: Config) -> Scan:
    """Scan T query-context pairs drawn from the support split in one pass; raises `StvError` on NaN."""
    pairs = make_pairs(task, config, demonstration_features(backbone, task, config))
    prompts = [prompt for side in zip(*pairs, strict=True) for prompt in side]
    order = longest_first(prompts)
    parts = predict(SensitivityScan(backbone), [prompts[i] for i in order], config.trainer)
    with_demonstrations, alone = torch.cat(parts)[torch.tensor(order).argsort()].chunk(2)
    if not (torch.isfinite(with_demonstrations).all() and torch.isfinite(alone).all()):
        raise StvError(
            f"Head activations of {backbone.name} on {task.name} contain NaN or infinity; "
            "check the weights or use model.dtype=float32."
        )
    demonstrations = [[d.id for d in prompt.demonstrations] for prompt, _ in pairs]
    return Scan(with_demonstrations, alone, [prompt.query.id for prompt, _ in pairs], demonstrations)


def make_pairs(task: Task, config: Config, features: Features | None = None) -> list[tuple[Prompt, Prompt]]:
    """T prompts with demonstrations beside the same T queries alone; queries repeat only when T exceeds the split.

    `features` are those of the support, for a `demonstrations.choice` that compares examples.
    """
    pick = random.Random(f"{config.seed}/scan")
    rounds = -(-config.scan.pairs // len(task.support))
    queries = [q for _ in range(rounds) for q in pick.sample(task.support, len(task.support))][: config.scan.pairs]
    choice = config.demonstrations.choice
    sampler = DemonstrationSampler(task, config.seed, config.dataset.label_noise, choice, features or {}, _SHARE)
    template = config.dataset.template
    return [
        (make_prompt(template, q, sampler.draw(q, config.scan.shots, f"scan{i}")), make_prompt(template, q))
        for i, q in enumerate(queries)
    ]
