"""A forward of prompts whose pictures have been seen before against one that looks at them anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from stv_exp.bench.subject import Subject
from stv_exp.bench.timing import Figure, Measurement, in_turns
from stv_exp.data.prompts import Prompt

PROMPTS = 4
SHOTS = (0, 4)


def measure(subject: Subject, rounds: int) -> Measurement:
    """Seconds of a batch from prompts to logits: by pixels, as a plain script does it, and by features kept."""
    backbone = subject.backbone
    ways: dict[str, Callable[..., Any]] = {"pixels": backbone.prepare, "kept": backbone.encode}
    runs = {
        f"{name}_{shots}_shots": partial(_forward, subject, encode, subject.prompts(PROMPTS, shots))
        for shots in SHOTS
        for name, encode in ways.items()
    }
    seconds = in_turns(runs, rounds)  # the round that warms up sees the pictures
    found = {s: Figure(seconds[f"kept_{s}_shots"] / seconds[f"pixels_{s}_shots"]) for s in SHOTS}
    return Measurement({f"kept_over_pixels_{s}_shots": figure for s, figure in found.items()}, seconds)


@torch.inference_mode()
def _forward(subject: Subject, encode: Callable[..., Any], prompts: Sequence[Prompt]) -> None:
    subject.backbone.model(**encode(prompts), use_cache=False, logits_to_keep=1)
