"""The settings of the testbed's pretraining."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from stv_exp.ranges import FOLDER, Above0, Count, Positive, Share


@dataclass
class PretrainConfig:
    """The recipe of the testbed's weights."""

    folder: Annotated[str, FOLDER] = "outputs/testbed"
    layers: Positive = 4
    hidden: Positive = 128
    images: Positive = 40_000
    perception_steps: Count = 1_000
    steps: Positive = 4_500
    sequences: Positive = 32
    examples: Positive = 9
    distinct_images: Positive = 96
    explicit: Share = 0.2
    noisy_sequences: Share = 0.25
    max_noise: Share = 0.3
    perception_lr: Above0 = 1.5e-3
    lr: Above0 = 1e-3
    weight_decay: Share = 0.05
    checkpoint_every: Positive = 250
