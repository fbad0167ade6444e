"""From what a search has chosen to a task vector that says where it comes from."""

from __future__ import annotations

from typing import Any

import torch

from stv_exp.artefacts.bank import Bank
from stv_exp.artefacts.chosen import Chosen
from stv_exp.config import Config, learned_from
from stv_exp.identity import signatures
from stv_exp.models.backbone import Backbone
from stv_exp.task_vector import TaskVector


def as_vector(backbone: Backbone, bank: Bank, chosen: Chosen, config: Config) -> TaskVector:
    """The chosen candidates as they are inserted by the evaluation, with their origin as metadata."""
    edit = config.insertion
    metadata = made_by(config, backbone.site(bank.site).shape) | {"run": signatures(config).run, "when": edit.when}
    mode, weights = edit.mode, None if edit.weight == 1 else torch.full((len(chosen.locations),), edit.weight)
    if chosen.weights is not None:
        mode = "blend" if edit.mode == "replace" else edit.mode
        weights = chosen.weights * (1.0 if edit.mode == "replace" else edit.weight)
    return TaskVector(
        chosen.locations,
        chosen.vectors,
        mode,
        metadata,
        weights=weights,
        site=bank.site,
        norm_preserving=edit.norm_preserving,
        when=edit.when,
    )


def made_by(config: Config, heads: dict[str, int]) -> dict[str, Any]:
    """The metadata of what a job makes: where it comes from, and under `heads` what it fits."""
    source = learned_from(config)
    return {
        "model": config.model.name,
        "revision": config.model.revision,
        "heads": heads,
        "pattern": config.model.heads.pattern,
        "dataset": f"{source.name}/{source.task}",
        "method": config.method.name,
        "seed": config.seed,
    }
