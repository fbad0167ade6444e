"""Candidate evaluations: as the reference code does them, batched, and as trees on shared prefixes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from stv_exp.bench.subject import Subject
from stv_exp.bench.timing import Figure, Measurement, in_turns, now
from stv_exp.data.task import Example
from stv_exp.models.heads import Insertion, inserted
from stv_exp.models.prefix import join, prefill
from stv_exp.models.scoring import tree, tree_inputs
from stv_exp.stages.bank import Bank
from stv_exp.stages.candidates import ClusterCandidates
from stv_exp.stages.policy import REFERENCE_SAMPLES, ReinforcePolicy, fit

S = 32
STEPS = 20
BLOCKS = 3
SEVERAL = 8  # queries in one forward


def measure(subject: Subject, rounds: int) -> Measurement:
    """Seconds a candidate evaluation, and what a step of the search is made of.

    `search` is drawing, scoring in trees, REINFORCE and Adam; `step` is that in the training loop, with Lightning and
    the data loader.
    """
    candidates = ClusterCandidates(random_bank(subject), "replace")
    # In blocks, so that a machine which slows down meanwhile does so for all that is compared.
    blocks = [_block(subject, candidates, max(1, rounds // BLOCKS)) for _ in range(BLOCKS)]
    seconds = {name: median(block[name] for block in blocks) for name in blocks[0]}
    seconds["bandwidth_limit"] = bandwidth_seconds(subject)
    for q in (1, SEVERAL):
        seconds[f"search_{q}"] = seconds[f"tree_{q}"] + seconds[f"update_{q}"]
        seconds[f"overhead_{q}"] = seconds[f"step_{q}"] - seconds[f"search_{q}"]
    return Measurement(_figures(seconds), seconds)


def _block(subject: Subject, candidates: ClusterCandidates, rounds: int) -> dict[str, float]:
    seconds = in_turns(_full_forwards(subject, candidates), max(1, rounds // 2))
    for q in (1, SEVERAL):
        seconds |= in_turns(_tree_parts(subject, candidates, q), rounds)
        seconds[f"step_{q}"] = _step(subject, q)
    return seconds


def _figures(seconds: Mapping[str, float]) -> dict[str, Figure]:
    one, several, floor = seconds["search_1"], seconds[f"search_{SEVERAL}"], seconds["floor_1"]
    share = 0.6 if torch.cuda.is_available() else None  # small models on a CPU compute rather than read
    whole = S * seconds["reference"]  # of the candidates of one query
    return {
        "tree_over_reference": Figure(whole / one, 90),
        f"tree_over_reference_{SEVERAL}_queries": Figure(SEVERAL * whole / several, 150),
        "tree_over_batched": Figure(seconds["batched"] / one),
        "tree_over_floor": Figure(one / floor, 1.25, at_least=False),
        f"tree_over_floor_{SEVERAL}_queries": Figure(several / seconds[f"floor_{SEVERAL}"], 1.25, at_least=False),
        # What it is made of, and what the training loop around it adds.
        **{f"{part}_over_floor": Figure(seconds[f"{part}_1"] / floor) for part in ("hooked", "update", "overhead")},
        "step_over_reference": Figure(whole / seconds["step_1"]),
        f"step_over_reference_{SEVERAL}_queries": Figure(SEVERAL * whole / seconds[f"step_{SEVERAL}"]),
        f"bandwidth_share_{SEVERAL}_queries": Figure(seconds["bandwidth_limit"] / several, share),
    }


def random_bank(subject: Subject) -> Bank:
    """K random locations with M random candidates each."""
    heads, method = subject.backbone.heads, subject.config.method
    pick = torch.Generator().manual_seed(0)
    locations = heads.all_locations()[torch.randperm(len(heads), generator=pick)[: method.k]]
    centroids = torch.randn(len(locations), method.m, heads.head_dim, generator=pick)
    return Bank(locations, centroids, torch.ones(len(locations), method.m))


def _full_forwards(subject: Subject, candidates: ClusterCandidates) -> dict[str, Callable[[], object]]:
    """One candidate a forward, and S; their pictures are prepared once, here: in favour of both."""
    backbone, insertion = subject.backbone, _draw(candidates, 1, S)
    one, batch = backbone.encode(subject.prompts(1)), backbone.encode(subject.prompts(1) * S)
    return {
        "reference": partial(_scored, subject, one, insertion.map(lambda t: t[:, :1])),
        "batched": partial(_scored, subject, batch, insertion.map(lambda t: t.transpose(0, 1))),
    }


@torch.inference_mode()
def _scored(subject: Subject, batch: Any, insertion: Insertion) -> Tensor:
    """Whole forwards, vision tower and prompt included, and all logits: what the rivals' published code does."""
    backbone = subject.backbone
    rows, length = batch["input_ids"].shape
    last = torch.full((rows, 1), length - 1, device=backbone.device)
    with inserted(backbone.heads, insertion, lambda: last):
        logits = backbone.model(**batch, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, -1].float(), _answer(subject).expand(rows))


def _answer(subject: Subject) -> Tensor:
    return subject.backbone.encode_answer(subject.prompts(1)[0], subject.config.dataset.template)


def _tree_parts(subject: Subject, candidates: ClusterCandidates, q: int) -> dict[str, Callable[[], object]]:
    """The bare forward of the tokens of a step with `q` queries, and what the search adds to it."""
    backbone, answers = subject.backbone, [_answer(subject)] * q
    s = S + REFERENCE_SAMPLES  # as a step draws them
    many, prefixes = _draw(candidates, q, s), prefill(backbone, subject.prompts(q))
    branch, positions = tree_inputs(backbone, prefixes, answers, s)
    bare = partial(_bare, backbone.model, {**branch, "position_ids": positions}, prefixes)
    return {
        f"floor_{q}": bare,
        f"hooked_{q}": partial(_hooked, subject, many, bare),
        f"tree_{q}": partial(tree, backbone, prefixes, answers, many, "every_step"),
        f"update_{q}": partial(_update, candidates, torch.optim.Adam(candidates.parameters(), lr=0.0), q),
    }


def _draw(candidates: ClusterCandidates, queries: int, samples: int) -> Insertion:
    return candidates.insertion(candidates.sample(queries, samples, torch.Generator().manual_seed(0)))


@torch.inference_mode()
def _bare(model: Any, inputs: dict[str, Any], prefixes: list[Any]) -> Tensor:
    """The same tokens with no hooks, sampling or loss."""
    return model(**inputs, past_key_values=join(prefixes), use_cache=True).logits


def _hooked(subject: Subject, insertion: Insertion, bare: Callable[[], Tensor]) -> Tensor:
    tokens = torch.arange(S + REFERENCE_SAMPLES, device=subject.backbone.device).expand(len(insertion.vectors), -1)
    with inserted(subject.backbone.heads, insertion, lambda: tokens):
        return bare()


def _update(candidates: ClusterCandidates, optimizer: torch.optim.Optimizer, queries: int) -> None:
    """All of a step but the scoring: draw candidates, assemble them, REINFORCE, Adam."""
    drawn = candidates.sample(queries, S, torch.Generator().manual_seed(0))
    candidates.insertion(drawn)
    (-(candidates.log_prob(drawn)).mean()).backward()
    optimizer.step()


class _Timed(ReinforcePolicy):
    """Notes when each step begins: Lightning and the data loader are part of what a step costs."""

    def on_train_batch_start(self, batch: list[Example], batch_idx: int) -> None:
        self.begun = [*getattr(self, "begun", []), now()]


def _step(subject: Subject, queries: int) -> float:
    """Median seconds of a step of the real search, prefixes computed before."""
    config = replace(subject.config, policy=replace(subject.config.policy, queries=queries))
    policy = _Timed(subject.backbone, ClusterCandidates(random_bank(subject), "replace"), config)
    policy.prepare(subject.task, warm=True)
    fit(policy, subject.task, STEPS + 1)
    steps = torch.tensor(policy.begun).diff()
    return steps.median().item()


def bandwidth_seconds(subject: Subject) -> float:
    """Seconds to read the decoder's and the output embeddings' weights once, at this device's measured bandwidth."""
    model = subject.backbone.model
    parts = [model.get_decoder(), model.get_output_embeddings()]
    embeddings = model.get_input_embeddings().weight
    weights = {id(p): p for part in parts for p in part.parameters() if p is not embeddings}
    n_bytes = sum(p.numel() * p.element_size() for p in weights.values())
    block = torch.ones(64 * 2**20, device=subject.backbone.device)  # 256 MiB, beyond any cache
    return n_bytes / (block.numel() * block.element_size() / in_turns({"read": block.sum}, 5)["read"])
