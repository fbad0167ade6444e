"""The search by gradient against the bare forward and backward of its tokens, in time and in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch

from stv_exp.artefacts.bank import Bank
from stv_exp.bench.bank import random_bank
from stv_exp.bench.floor import Branches
from stv_exp.bench.steps import by_hand, in_the_loop
from stv_exp.bench.subject import Subject
from stv_exp.bench.timing import Figure, Measurement, in_blocks, in_turns, peak_bytes
from stv_exp.cli import configure
from stv_exp.config import Config
from stv_exp.models.edits import Edit
from stv_exp.models.scoring import tree
from stv_exp.stages.search import mixture

QUERIES = 8
STEPS = 80
_COUNTED = 3  # forwards that a forward and its backward count as in a budget


def measure(subject: Subject, rounds: int) -> Measurement:
    """Seconds of a step over the candidates of all heads, and its memory beside that of a REINFORCE step.

    `step` is shares, mixture, scoring in trees, backward and Adam; `scored` is the trees of it, forward and backward;
    `loop` is `step` in the training loop; `forward` is the floor's, without gradients. Token-forwards a second are of
    a whole search, its looks at the discrete choice included.
    """
    bank, config = random_bank(subject, subject.backbone.heads.all_locations()), settings(subject)
    branches, step = Branches.of(subject, QUERIES, 1), by_hand(subject, bank, config)
    parts: dict[str, Callable[[], object]] = {
        "forward": branches.forward,
        "floor": branches.forward_backward,
        "scored": partial(_scored, branches, bank),
        "step": step,
    }
    seconds = in_blocks(lambda share: in_turns(parts, share) | _loop(subject, bank, config), rounds)
    seconds["floor_token_forward"] = seconds["floor"] / (_COUNTED * branches.n_tokens)
    tried = {"gradient": step, "drawn": _reinforce(subject)}
    n_bytes = {name: peak_bytes(run, subject.backbone.device) for name, run in tried.items()}
    return Measurement(_figures(seconds, n_bytes), seconds, n_bytes)


def settings(subject: Subject) -> Config:
    """Those of `method=stv_gradient`: its steps and queries, all heads, "leave it alone" allowed, straight-through."""
    config = configure("method=stv_gradient", f"policy.steps={STEPS}", f"policy.queries={QUERIES}")
    return replace(config, dataset=subject.config.dataset)


def _figures(seconds: Mapping[str, float], n_bytes: Mapping[str, int]) -> dict[str, Figure]:
    floor = seconds["floor"]
    figures = {
        "step_over_floor": Figure(seconds["step"] / floor, 1.3, at_least=False),
        "scored_over_floor": Figure(seconds["scored"] / floor),
        "loop_over_floor": Figure(seconds["loop"] / floor),
        "floor_over_forward": Figure(floor / seconds["forward"]),
        "token_forwards_per_second_over_floor": Figure(seconds["floor_token_forward"] / seconds["loop_token_forward"]),
    }
    if n_bytes["drawn"]:  # nothing is known of memory on some systems
        figures["memory_over_reinforce"] = Figure(n_bytes["gradient"] / n_bytes["drawn"], 2, at_least=False)
    return figures


def _loop(subject: Subject, bank: Bank, config: Config) -> dict[str, float]:
    search = in_the_loop(subject, bank, config)
    return {"loop": search.step_seconds, "loop_token_forward": 1 / search.token_forwards_per_second}


def _scored(branches: Branches, bank: Bank) -> None:
    """Trees under one mixture a query, which is ready, and their gradient in its values and kept shares."""
    k, m = bank.centroids.shape[:2]
    shares = torch.full((QUERIES, 1, k, m + 1), 1 / (m + 1))
    ready = mixture(bank, shares, Edit()).map(lambda t: t.requires_grad_())
    with torch.enable_grad():
        tree(branches.backbone, branches.prefixes, branches.answers, ready, "prompt").sum().backward()


def _reinforce(subject: Subject) -> Callable[[], object]:
    """A step of the subject's own search with as many queries."""
    policy = replace(subject.config.policy, queries=QUERIES)
    return by_hand(subject, random_bank(subject), replace(subject.config, policy=policy))
