"""The sensitivity scan against bare forwards of the same batches, in time and in memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from stv_exp.bench.subject import Subject
from stv_exp.bench.timing import Figure, Measurement, in_turns, peak_bytes
from stv_exp.data.prompts import Prompt

PROMPTS = 4
SHOTS = (1, 4, 8)


def measure(subject: Subject, rounds: int) -> Measurement:
    """Seconds of a batch captured and of the batch alone, and the memory that capturing adds, by shots."""
    runs = {
        f"{kind}_{shots}_shots": partial(run, subject, subject.prompts(PROMPTS, shots))
        for shots in SHOTS
        for kind, run in (("capture", _capture), ("forward", _forward))
    }
    timed = {name: run for name, run in runs.items() if name.endswith(f"_{SHOTS[1]}_shots")}
    seconds = in_turns(timed, max(5, rounds // 2))
    n_bytes = {name: peak_bytes(run, subject.backbone.device) for name, run in runs.items()}
    middle = f"{SHOTS[1]}_shots"
    figures = {"over_floor": Figure(seconds[f"capture_{middle}"] / seconds[f"forward_{middle}"], 1.05, at_least=False)}
    for shots in SHOTS:
        if floor := n_bytes[f"forward_{shots}_shots"]:  # nothing is known of memory on some systems
            share = n_bytes[f"capture_{shots}_shots"] / floor
            figures[f"memory_over_floor_{shots}_shots"] = Figure(share, 1.1, at_least=False)
    return Measurement(figures, seconds, n_bytes)


def _capture(subject: Subject, prompts: Sequence[Prompt]) -> None:
    subject.backbone.capture(subject.backbone.encode(prompts))


@torch.inference_mode()
def _forward(subject: Subject, prompts: Sequence[Prompt]) -> None:
    subject.backbone.model(**subject.backbone.encode(prompts), use_cache=False, logits_to_keep=1)
