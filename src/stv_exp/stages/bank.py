"""Activation bank (STV, step 2): locations, and the candidates at each of them."""

from __future__ import annotations

import torch
from torch import Tensor

from stv_exp.artefacts.bank import Bank
from stv_exp.artefacts.scan import Scan
from stv_exp.config import Config
from stv_exp.errors import StvError
from stv_exp.methods.choice import Grid, What
from stv_exp.methods.guard import blamed, checked_candidates, checked_locations
from stv_exp.methods.method import Method
from stv_exp.models.backbone import Backbone
from stv_exp.models.projections import images
from stv_exp.stages.predict import predict
from stv_exp.stages.trainer import Stage


class ActivationBank(Stage):
    """Makes the candidates of a batch of locations from their activations."""

    stage = "bank"

    def __init__(self, what: What) -> None:
        super().__init__()
        self.what = what

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        return checked_candidates(self.what, torch.stack(batch))


def build_bank(scan: Scan, config: Config, backbone: Backbone | None = None) -> Bank:
    """The locations and candidates of `config.method`; raises `StvError` where a choice returns something else.

    The model is needed by a `what` whose candidates move to another site.
    """
    method = Method.of(config)
    n_heads = scan.grid[1] if len(scan.grid) > 1 else None
    method.check_grid(Grid(config.model.name, scan.site, scan.grid[0], n_heads))
    places = checked_locations(method.where, scan)
    # What is added at another site is no difference between two states of that one.
    deltas = config.insertion.mode == "add" and not method.what.moves_to
    source = scan.deltas if deltas else scan.with_demonstrations
    activations = source.movedim(0, -2)[tuple(places.unbind(1))].float()  # [K, T, D]
    parts = predict(ActivationBank(method.what), list(activations), config.trainer)
    centroids, sizes = (torch.cat(found) for found in zip(*parts, strict=True))
    if method.what.moves_to:
        return _moved(method.what, scan.numbered(places), centroids, sizes, backbone)
    scores = method.where.scores(scan)
    ranked = None if scores is None else scan.by_layer(scores)
    return Bank(scan.numbered(places), centroids, sizes, scan.site, ranked)


def _moved(what: What, heads: Tensor, centroids: Tensor, sizes: Tensor, backbone: Backbone | None) -> Bank:
    """What heads write, made into the same candidates at every location of another site; nothing ranks those."""
    if backbone is None:
        raise StvError(f"method.what={what.name} needs the model's projections; hand build_bank the backbone.")
    site = backbone.site(what.moves_to)
    with blamed(what):
        found = what.moved(images(backbone.heads, heads, centroids))
    candidates = found.expand(len(site), *found.shape).contiguous()
    return Bank(site.all_locations(), candidates, sizes[:1].repeat(len(site), 1), site.name)
