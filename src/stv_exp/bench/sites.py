"""Scoring in trees at each site against the bare forward of its tokens."""

from __future__ import annotations

from functools import partial

import torch

from stv_exp.artefacts.bank import Bank
from stv_exp.bench.bank import random_bank
from stv_exp.bench.floor import Branches
from stv_exp.bench.subject import Subject
from stv_exp.bench.timing import Figure, Measurement, in_turns
from stv_exp.methods import categorical
from stv_exp.models.edits import Edit, Insertion
from stv_exp.models.scoring import tree
from stv_exp.stages.search import insertion

S = 32
SITES = ("head", "attention", "mlp", "residual")


def measure(subject: Subject, rounds: int) -> Measurement:
    """Seconds of a query's S candidates at K heads, or at every layer of a site without heads."""
    branches = Branches.of(subject, 1, S)
    score = partial(tree, branches.backbone, branches.prefixes, branches.answers, when="every_step")
    runs = {site: partial(score, insertion=drawn(_bank(subject, site), S)) for site in SITES}
    seconds = in_turns({"floor": branches.forward, **runs}, rounds)
    return Measurement({f"{site}_over_floor": Figure(seconds[site] / seconds["floor"]) for site in SITES}, seconds)


def drawn(bank: Bank, samples: int) -> Insertion:
    """Random candidates for one query."""
    k, m = bank.centroids.shape[:2]
    choices = categorical.sample(torch.zeros(k, m), 1, samples, torch.Generator().manual_seed(0))
    return insertion(bank, choices, Edit())


def _bank(subject: Subject, site: str) -> Bank:
    locations = None if site == "head" else subject.backbone.site(site).all_locations()
    return random_bank(subject, locations, site)
