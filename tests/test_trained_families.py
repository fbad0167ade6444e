"""Every family trains every edit for a step and answers under it; what a family cannot do is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stv_exp.config import TrainConfig
from stv_exp.data.task import Task
from stv_exp.errors import StvError
from stv_exp.methods.registry import choices, find
from stv_exp.stages.evaluate import evaluate
from stv_exp.stages.train import train
from tests.conftest import with_method
from tests.families import FAMILIES, VISION_FAMILIES
from tests.test_families import load
from tests.test_oracles import TEXT, words

EDITS = [name for name in choices("edit") if name != "none"]
OWN_ATTENTION = {"remote"}


def few(task: Task) -> Task:
    return replace(task, support=task.support[:4], evaluation=task.evaluation[:2])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_every_edit(family, task, config):
    backbone, task = load(family), few(task if family in VISION_FAMILIES else words())
    if family not in VISION_FAMILIES:
        config = replace(config, dataset=replace(config.dataset, template=TEXT))
    for name in EDITS:
        own = with_method(config, name=name, where="none", what="none", how="none", edit=name, site="mlp")
        own = replace(own, train=TrainConfig(epochs=1, batch=4, shots=2, warmup=0.0))
        if family in OWN_ATTENTION and find("edit", name).attends:
            with pytest.raises(StvError, match="has attention of its own"):
                train(backbone, task, own)
            continue
        edit = train(backbone, task, own)
        assert all(torch.isfinite(values).all() for values in edit.parameters.values())
        assert len(evaluate(backbone, task, edit, own)) == 2
