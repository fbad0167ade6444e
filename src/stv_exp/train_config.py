"""The settings of edits whose parameters are trained through the frozen model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from stv_exp.ranges import Above0, Count, OneOf, Positive, Range, Share


@dataclass
class TrainConfig:
    """Training of a `method.edit`: AdamW over `epochs` of the support in batches of `batch`, warm-up, then cosine.

    `scale_lr` is the rate of scales where an edit has them, `warmup` a share of all steps, `clip` the longest gradient
    (0: any). Losses are of `tokens`: all (the answer and what ends it), the answer, or its first; a teacher sees
    `shots` demonstrations. With `patience` training stops after so many epochs without a gain on `dataset.validation`,
    and the best is kept (0: never). `layers` that are edited (empty: all). `noise` is a share of an activation's
    length. Free vectors `start` as the mean activation behind demonstrations or as zero. `virtual` pairs of key and
    value a head, each of `rank` (0: full, which is prefix tuning); `rank` is LoRA's too. With `unseen`, later and
    padded keys count in attention's denominators where an edit reads these, as published. What answers change is read
    with question and answer `alone`, as published, or with the one behind the other.
    """

    epochs: Positive = 10
    batch: Positive = 8
    lr: Above0 = 5e-3
    scale_lr: Above0 = 1e-2
    weight_decay: Share = 1e-3
    warmup: Share = 0.1
    clip: Annotated[float, Range(0, 1e6)] = 1.0
    tokens: Annotated[str, OneOf("all", "answer", "first")] = "all"
    shots: Positive = 8
    patience: Count = 0
    layers: list[int] = field(default_factory=list)
    noise: Share = 0.001
    start: Annotated[str, OneOf("mean", "zero")] = "mean"
    virtual: Positive = 8
    rank: Count = 8
    unseen: bool = False
    alone: bool = True

    @property
    def to_the_end(self) -> bool:
        """Whether losses are of what ends an answer too."""
        return self.tokens == "all"
