"""Candidates to insert: random ones, as no time depends on what is written."""

from __future__ import annotations

import torch
from torch import Tensor

from stv_exp.artefacts.bank import Bank
from stv_exp.bench.subject import Subject


def random_bank(subject: Subject, locations: Tensor | None = None, site: str = "head") -> Bank:
    """M random candidates at each of some locations of a site; without them at K random heads."""
    place, method = subject.backbone.site(site), subject.config.method
    pick = torch.Generator().manual_seed(0)
    if locations is None:
        locations = place.all_locations()[torch.randperm(len(place), generator=pick)[: method.k]]
    centroids = torch.randn(len(locations), method.m, place.dim, generator=pick)
    return Bank(locations, centroids, torch.ones(len(locations), method.m), site)
