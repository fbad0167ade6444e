"""Branches that start at the first edited layer against branches that pass through all of them."""

from __future__ import annotations

from functools import partial

from stv_exp.bench.bank import random_bank
from stv_exp.bench.floor import Branches
from stv_exp.bench.sites import S, drawn
from stv_exp.bench.subject import Subject
from stv_exp.bench.timing import Figure, Measurement, in_turns
from stv_exp.models.edits import Insertion
from stv_exp.models.scoring import tree

UPPER = {"upper_quarter": 0.25, "upper_half": 0.5, "upper_three_quarters": 0.75, "every_layer": 1.0}


def measure(subject: Subject, rounds: int) -> Measurement:
    """Seconds of a query's S candidates at all heads of the upper layers, what they share computed before.

    `..._over_all` is their time over that of the same candidates from the first layer on, `..._token_forwards` what a
    budget counts them as, likewise.
    """
    branches = Branches.of(subject, 1, S)
    seconds, figures = dict[str, float](), dict[str, Figure]()
    for name, share in UPPER.items():
        score = partial(_score, branches, upper(subject, share))
        found = in_turns({"late": partial(score, late=True), "all": partial(score, late=False)}, rounds)
        seconds |= {f"{name}_{way}": value for way, value in found.items()}
        figures[f"{name}_over_all"] = Figure(found["late"] / found["all"])
        figures[f"{name}_token_forwards"] = Figure(score(late=True) / score(late=False))
    return Measurement(figures, seconds)


def upper(subject: Subject, share: float) -> Insertion:
    """Random candidates at every head of that share of the layers, from the top (of one layer at least)."""
    heads = subject.backbone.heads
    locations = heads.all_locations()
    lowest = heads.n_layers - max(1, round(share * heads.n_layers))
    return drawn(random_bank(subject, locations[locations[:, 0] >= lowest]), S)


def _score(branches: Branches, insertion: Insertion, late: bool) -> float:
    """Score them; returns the token-forwards that it took."""
    before = branches.backbone.token_forwards
    tree(branches.backbone, branches.prefixes, branches.answers, insertion, "every_step", late)
    return branches.backbone.token_forwards - before
