"""Where to insert: STV's scan beside MTV's search of its mask, as its published code does that and as it is done here.

STV claims to save 98% of the search for locations (arXiv 2511.08246).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image

from stv_exp.bench.bank import random_bank
from stv_exp.bench.search import Policy, S, full_forwards
from stv_exp.bench.steps import in_the_loop
from stv_exp.bench.subject import Subject
from stv_exp.bench.timing import Figure, Measurement, in_turns, now
from stv_exp.cli import configure
from stv_exp.data.task import Example
from stv_exp.models.prefix import prefill
from stv_exp.stages.scan import scan

STEPS = 600  # of one query and S candidates, as published
TIMED = 20  # of them
PREFIXES = 8  # of the support's


def measure(subject: Subject, rounds: int) -> Measurement:
    """Seconds of a scan of 100 pairs of 4 shots, and of 600 steps of MTV's search without its final selection.

    `published` is a whole forward for each candidate, `search` a prefix a query and branches of it. One scan is timed,
    20 steps and a few prefixes stand for all.
    """
    subject = replace(subject, task=replace(subject.task, support=_different(subject)))
    config = configure("method=mtv", f"policy.steps={TIMED}", "policy.queries=1", "scan.pairs=100", "scan.shots=4")
    config = replace(config, dataset=subject.config.dataset)
    backbone, pictures = subject.backbone, subject.backbone.pictures.recent
    one = replace(subject, config=replace(config, method=replace(config.method, m=1)))  # a head's mean, or nothing
    bank = random_bank(one, backbone.heads.all_locations())

    def prefixes() -> None:
        pictures.clear()  # a search looks at each picture once
        prefill(backbone, subject.prompts(PREFIXES))

    parts: dict[str, Callable[[], object]] = {
        "forward": full_forwards(subject, Policy.of(subject).drawn(1, S))["reference"],
        "prefixes": prefixes,
    }
    seconds = in_turns(parts, max(1, rounds // 2))
    step = in_the_loop(subject, bank, config).step_seconds
    pictures.clear()
    start = now()
    scan(backbone, subject.task, config)
    found = {
        "scan": now() - start,
        "search": STEPS * step + len(subject.task.support) * seconds["prefixes"] / PREFIXES,
        "published": STEPS * S * seconds["forward"],
    }
    saved = {f"saved_of_{name}": Figure(1 - found["scan"] / found[name]) for name in ("search", "published")}
    return Measurement(saved, seconds | {"step": step} | found)


def _different(subject: Subject) -> tuple[Example, ...]:
    """The support with a picture of its own for each example: what is seen twice would be looked at once."""
    noise, (width, height) = np.random.default_rng(0), subject.task.support[0].pictures[0].size
    size = (height, width, 3)
    pictures = (noise.integers(0, 255, size, dtype=np.uint8) for _ in subject.task.support)
    return tuple(
        replace(example, images=(partial(Image.fromarray, picture),))
        for example, picture in zip(subject.task.support, pictures, strict=True)
    )
