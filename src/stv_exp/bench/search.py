"""Candidate evaluations: as the reference code does them, batched, and as trees on shared prefixes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from stv_exp.artefacts.bank import Bank
from stv_exp.bench.bank import random_bank
from stv_exp.bench.floor import Branches
from stv_exp.bench.steps import in_the_loop
from stv_exp.bench.subject import Subject
from stv_exp.bench.timing import Figure, Measurement, in_blocks, in_turns
from stv_exp.methods.how.reinforce import REFERENCE_SAMPLES, Reinforce
from stv_exp.methods.method import Method
from stv_exp.models.edits import Edit, Insertion, inserted
from stv_exp.models.scoring import tree
from stv_exp.stages.search import insertion

S = 32
STEPS = 20
SEVERAL = 8  # queries in one forward


def measure(subject: Subject, rounds: int) -> Measurement:
    """Seconds a candidate evaluation, and what a step of the search is made of.

    `tree` is scoring; `update` is drawing, REINFORCE and Adam; `step` is both in the training loop, with Lightning and
    the data loader.
    """
    seconds = in_blocks(partial(_block, subject, Policy.of(subject)), rounds)
    seconds["bandwidth_limit"] = bandwidth_seconds(subject)
    return Measurement(_figures(seconds, subject.backbone.device.type), seconds)


@dataclass(frozen=True)
class Policy:
    """What REINFORCE draws from at K random heads, and how it draws."""

    bank: Bank
    how: Reinforce

    @classmethod
    def of(cls, subject: Subject) -> Policy:
        """The policy that the subject's settings name."""
        how = Method.of(subject.config).how
        assert isinstance(how, Reinforce)
        return cls(random_bank(subject), how)

    @cached_property
    def logits(self) -> nn.Parameter:
        return nn.Parameter(self.how.start(self.bank))

    def draw(self, queries: int, samples: int) -> Tensor:
        """Choices `[Q, S, K]`."""
        return self.how.sample(self.logits, queries, samples, torch.Generator().manual_seed(0))

    def drawn(self, queries: int, samples: int) -> Insertion:
        """What they write."""
        return insertion(self.bank, self.draw(queries, samples), Edit())

    def update(self, optimizer: torch.optim.Optimizer, queries: int) -> None:
        """All of a step but the scoring: draw candidates, assemble them, REINFORCE, Adam."""
        choices = self.draw(queries, S)
        insertion(self.bank, choices, Edit())
        (-(self.how.log_prob(self.logits, choices)).mean()).backward()
        optimizer.step()


def _block(subject: Subject, policy: Policy, rounds: int) -> dict[str, float]:
    seconds = in_turns(full_forwards(subject, policy.drawn(1, S)), max(1, rounds // 2))
    for q in (1, SEVERAL):
        seconds |= in_turns(_tree_parts(subject, policy, q), rounds)
        settings = replace(subject.config.policy, queries=q, steps=STEPS + 1)
        seconds[f"step_{q}"] = in_the_loop(subject, policy.bank, replace(subject.config, policy=settings)).step_seconds
    return seconds


def _figures(seconds: Mapping[str, float], device: str) -> dict[str, Figure]:
    one, several = (seconds[f"tree_{q}"] + seconds[f"update_{q}"] for q in (1, SEVERAL))
    floor = seconds["floor_1"]
    share = 0.6 if device == "cuda" else None  # small models on a CPU compute rather than read
    whole = S * seconds["reference"]  # of the candidates of one query
    return {
        "tree_over_reference": Figure(whole / one, 90),
        f"tree_over_reference_{SEVERAL}_queries": Figure(SEVERAL * whole / several, 150),
        "tree_over_batched": Figure(seconds["batched"] / one),
        "tree_over_floor": Figure(one / floor, 1.25, at_least=False),
        f"tree_over_floor_{SEVERAL}_queries": Figure(several / seconds[f"floor_{SEVERAL}"], 1.25, at_least=False),
        # What it is made of, and what the training loop around it adds.
        **{f"{part}_over_floor": Figure(seconds[f"{part}_1"] / floor) for part in ("hooked", "update")},
        "overhead_over_floor": Figure((seconds["step_1"] - one) / floor),
        "step_over_reference": Figure(whole / seconds["step_1"]),
        f"step_over_reference_{SEVERAL}_queries": Figure(SEVERAL * whole / seconds[f"step_{SEVERAL}"]),
        f"bandwidth_share_{SEVERAL}_queries": Figure(seconds["bandwidth_limit"] / several, share),
    }


def full_forwards(subject: Subject, drawn: Insertion) -> dict[str, Callable[[], object]]:
    """One candidate a forward, and S; their pictures are prepared once, here: in favour of both."""
    backbone = subject.backbone
    one, batch = backbone.prepare(subject.prompts(1)), backbone.prepare(subject.prompts(1) * S)
    return {
        "reference": partial(_scored, subject, one, drawn.map(lambda t: t[:, :1])),
        "batched": partial(_scored, subject, batch, drawn.map(lambda t: t.transpose(0, 1))),
    }


@torch.inference_mode()
def _scored(subject: Subject, batch: Any, drawn: Insertion) -> Tensor:
    """Whole forwards, vision tower and prompt included, and all logits: what the rivals' published code does."""
    backbone = subject.backbone
    rows, length = batch["input_ids"].shape
    last = torch.full((rows, 1), length - 1, device=backbone.device)
    with inserted(backbone.heads, drawn, lambda: last):
        logits = backbone.model(**batch, use_cache=False).logits
    answer = backbone.encode_answer(subject.prompts(1)[0])
    return torch.nn.functional.cross_entropy(logits[:, -1].float(), answer.expand(rows))


def _tree_parts(subject: Subject, policy: Policy, q: int) -> dict[str, Callable[[], object]]:
    """The bare forward of the tokens of a step with `q` queries, and what the search adds to it."""
    branches = Branches.of(subject, q, S + REFERENCE_SAMPLES)  # as a step draws them
    drawn = policy.drawn(q, branches.s)
    return {
        f"floor_{q}": branches.forward,
        f"hooked_{q}": partial(_hooked, drawn, branches),
        f"tree_{q}": partial(tree, branches.backbone, branches.prefixes, branches.answers, drawn, "every_step"),
        f"update_{q}": partial(policy.update, torch.optim.Adam([policy.logits], lr=0.0), q),
    }


def _hooked(drawn: Insertion, branches: Branches) -> Tensor:
    tokens = torch.arange(branches.s, device=branches.backbone.device).expand(len(drawn.values), -1)
    with inserted(branches.backbone.heads, drawn, lambda: tokens):
        return branches.forward()


def bandwidth_seconds(subject: Subject) -> float:
    """Seconds to read the decoder's and the output embeddings' weights once, at this device's measured bandwidth."""
    model = subject.backbone.model
    parts = [model.get_decoder(), model.get_output_embeddings()]
    embeddings = model.get_input_embeddings().weight
    weights = {id(p): p for part in parts for p in part.parameters() if p is not embeddings}
    n_bytes = sum(p.numel() * p.element_size() for p in weights.values())
    block = torch.ones(64 * 2**20, device=subject.backbone.device)  # 256 MiB, beyond any cache
    return n_bytes / (block.numel() * block.element_size() / in_turns({"read": block.sum}, 5)["read"])
