"""Every family runs every method for a step and answers under it; what a family cannot do is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stv_exp.config import Config, TrainConfig
from stv_exp.data.task import Task
from stv_exp.errors import StvError
from stv_exp.library import build_bank, search
from stv_exp.methods.method import Method
from stv_exp.methods.registry import choices, find
from stv_exp.models.backbone import Backbone
from stv_exp.stages import reading
from stv_exp.stages.evaluate import evaluate
from stv_exp.stages.scan import scan
from stv_exp.stages.train import train
from tests.conftest import with_method
from tests.families import FAMILIES, VISION_FAMILIES
from tests.test_families import load
from tests.test_oracles import TEXT, words

EDITS = [*((name, 8) for name in choices("edit") if name != "none"), ("hificl", 0)]  # with a rank; 0: prefix tuning
FOUND = [
    {"k": 2, "m": 1},
    {"where": "all", "what": "mean", "how": "bernoulli"},
    {"where": "all", "how": "gumbel_softmax", "m": 1},
    {"where": "all", "how": "mixture", "m": 1},
    {"where": "all", "what": "mean", "how": "best_location", "site": "residual", "k": 0},
    {"where": "indirect_effect", "what": "function_vector", "how": "best_location", "k": 2},
    {"where": "none", "what": "none", "how": "class_means", "k": 2},
]
OWN_ATTENTION = {"remote"}


def few(task: Task) -> Task:
    return replace(task, support=task.support[:4], evaluation=task.evaluation[:2])


def of(family: str, task: Task, config: Config) -> tuple[Backbone, Task, Config]:
    """A model of the family, and a few examples that it can read."""
    if family in VISION_FAMILIES:
        return load(family), few(task), config
    task = few(words())
    task = replace(task, labels=tuple(sorted({example.answers[0] for example in task.support})))  # to classify by
    return load(family), task, replace(config, dataset=replace(config.dataset, template=TEXT))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_every_method_that_is_found(family, task, config):
    backbone, task, config = of(family, task, config)
    config = replace(config, scan=replace(config.scan, pairs=4, effect_prompts=1, per_label=1))
    for method in FOUND:
        own = with_method(config, **method)
        if Method.of(own).classifies:
            found = reading.learned(reading.read(backbone, task, own), own)
        else:
            bank = build_bank(scan(backbone, task, own), own, backbone, task)
            found = search(backbone, task, bank, own)
        assert len(evaluate(backbone, task, found, own)) == 2, method


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_every_edit(family, task, config):
    backbone, task, config = of(family, task, config)
    for name, rank in EDITS:
        own = with_method(config, name=name, where="none", what="none", how="none", edit=name, site="mlp")
        own = replace(own, train=TrainConfig(epochs=1, batch=4, shots=2, warmup=0.0, rank=rank))
        if family in OWN_ATTENTION and find("edit", name).attends:
            with pytest.raises(StvError, match="has attention of its own"):
                train(backbone, task, own)
            continue
        edit = train(backbone, task, own)
        assert all(torch.isfinite(values).all() for values in edit.parameters.values())
        assert len(evaluate(backbone, task, edit, own)) == 2
