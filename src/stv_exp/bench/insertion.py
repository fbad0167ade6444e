"""Generation with a task vector against generation without, and against the prompts that it stands for."""

from __future__ import annotations

from functools import partial
from typing import Any

from transformers import GenerationConfig

from stv_exp import TaskVector
from stv_exp.bench.bank import random_bank
from stv_exp.bench.subject import Subject
from stv_exp.bench.timing import Figure, Measurement, in_turns

ROWS = 4
TOKENS = 16
SHOTS = (4, 8, 16)


def measure(subject: Subject, rounds: int) -> Measurement:
    """Seconds to generate the same number of tokens, prompt included, and the ratios of tokens a second."""
    bank = random_bank(subject)
    vector = TaskVector(bank.locations, bank.centroids[:, 0])
    prepare = subject.backbone.prepare  # pixels, as a plain script has them
    alone = prepare(subject.prompts(ROWS))
    runs = {"plain": partial(generate, subject, alone), "vector": partial(generate, subject, alone, vector)}
    prompted = {f"{s}_shot": partial(generate, subject, prepare(subject.prompts(ROWS, s))) for s in SHOTS}
    # Apart: a long prompt leaves the processor's cache as no generation of a user's would find it.
    seconds = in_turns(runs, rounds) | in_turns(prompted, max(2, rounds // 5))
    figures = {"over_plain": Figure(seconds["plain"] / seconds["vector"], 0.97)}
    figures |= {f"over_{s}_shot": Figure(seconds[f"{s}_shot"] / seconds["vector"]) for s in SHOTS}
    return Measurement(figures, seconds)


def generate(subject: Subject, batch: Any, vector: TaskVector | None = None) -> None:
    """`TOKENS` new tokens a row, none of which ends an answer."""
    model = subject.backbone.model
    fixed = GenerationConfig(max_new_tokens=TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0)
    if vector is None:
        model.generate(**batch, generation_config=fixed)
        return
    with vector.inserted(model):
        model.generate(**batch, generation_config=fixed)
