"""Activation bank (STV, step 2): locations, and the candidates at each of them."""

from __future__ import annotations

import torch
from torch import Tensor

from stv_exp.artefacts.bank import Bank
from stv_exp.artefacts.scan import Scan
from stv_exp.config import Config
from stv_exp.methods.choice import Grid, What
from stv_exp.methods.guard import checked_candidates, checked_locations
from stv_exp.methods.method import Method
from stv_exp.stages.trainer import Stage, predict


class ActivationBank(Stage):
    """Makes the candidates of a batch of locations from their activations."""

    stage = "bank"

    def __init__(self, what: What) -> None:
        super().__init__()
        self.what = what

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        return checked_candidates(self.what, torch.stack(batch))


def build_bank(scan: Scan, config: Config) -> Bank:
    """The locations and candidates of `config.method`; raises `StvError` where a choice returns something else."""
    method = Method.of(config)
    method.check_grid(Grid(config.model.name, scan.site, *scan.grid))
    places = checked_locations(method.where, scan)
    source = scan.deltas if config.insertion.mode == "add" else scan.with_demonstrations
    activations = source.movedim(0, -2)[tuple(places.unbind(1))].float()  # [K, T, D]
    parts = predict(ActivationBank(method.what), list(activations), config.trainer)
    centroids, sizes = (torch.cat(found) for found in zip(*parts, strict=True))
    scores = method.where.scores(scan)
    ranked = None if scores is None else scan.by_layer(scores)
    return Bank(scan.numbered(places), centroids, sizes, scan.site, ranked)
