"""Sensitivity scan (STV, step 1): activations with and without demonstrations."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from stv_exp.artefacts.scan import Scan
from stv_exp.config import Config, learned_from
from stv_exp.data.demonstrations import DemonstrationSampler, Features
from stv_exp.data.prompts import Prompt, make_prompt
from stv_exp.data.task import Task
from stv_exp.errors import StvError
from stv_exp.methods.choice import Grid
from stv_exp.methods.method import Method
from stv_exp.models.backbone import Backbone
from stv_exp.stages.features import demonstration_features
from stv_exp.stages.predict import predict_in_order
from stv_exp.stages.trainer import Stage

_SHARE = 0.5  # of the support for each context: facility location would else choose the same one for all


class SensitivityScan(Stage):
    """Captures a batch of prompts."""

    stage = "scan"

    def __init__(self, backbone: Backbone, site: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.site = site

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> Tensor:
        return self.backbone.capture(self.backbone.encode(batch), self.site)


def scan(backbone: Backbone, task: Task, config: Config) -> Scan:
    """Scan T query-context pairs drawn from the support split in one pass; raises `StvError` on NaN."""
    pairs = make_pairs(task, config, demonstration_features(backbone, task, config))
    prompts = [prompt for side in zip(*pairs, strict=True) for prompt in side]
    with_demonstrations, alone = captured(backbone, task, prompts, config).chunk(2)
    site = backbone.site(config.method.site)
    demonstrations = [[d.id for d in prompt.demonstrations] for prompt, _ in pairs]
    queries = [prompt.query.id for prompt, _ in pairs]
    return Scan(with_demonstrations, alone, queries, demonstrations, site.name, list(site.layers))


def make_pairs(task: Task, config: Config, features: Features | None = None) -> list[tuple[Prompt, Prompt]]:
    """T prompts with demonstrations beside the same T queries alone; queries repeat only when T exceeds the split.

    `features` are those of the support, for a `demonstrations.choice` that compares examples.
    """
    prompts = with_demonstrations(task, config, config.scan.pairs, "scan", features)
    return [(prompt, make_prompt(prompt.template, prompt.query)) for prompt in prompts]


def with_demonstrations(
    task: Task, config: Config, n: int, purpose: str, features: Features | None = None
) -> list[Prompt]:
    """`n` support queries behind `scan.shots` demonstrations each; `purpose` keeps draws apart."""
    pick = random.Random(f"{config.seed}/{purpose}")
    rounds = -(-n // len(task.support))
    queries = [q for _ in range(rounds) for q in pick.sample(task.support, len(task.support))][:n]
    template, sampler = learned_from(config).template, support_sampler(task, config, features)
    return [
        make_prompt(template, q, sampler.draw(q, config.scan.shots, f"{purpose}{i}")) for i, q in enumerate(queries)
    ]


def support_sampler(task: Task, config: Config, features: Features | None = None) -> DemonstrationSampler:
    """Demonstrations for queries of the support itself."""
    return DemonstrationSampler(task, config.seed, config.demonstrations.choice, features or {}, _SHARE)


def captured(backbone: Backbone, task: Task, prompts: Sequence[Prompt], config: Config) -> Tensor:
    """Activations `[N, *grid, D]` of prompts in one pass; raises `StvError` on NaN."""
    site = backbone.site(config.method.site)
    Method.of(config).check_grid(Grid(backbone.name, site.name, site.n_layers, site.n_heads))
    found = predict_in_order(SensitivityScan(backbone, site.name), prompts, config.trainer)
    if not torch.isfinite(found).all():
        raise StvError(
            f"Activations of {backbone.name} on {task.name} contain NaN or infinity; "
            "check the weights or use model.dtype=float32."
        )
    return found
