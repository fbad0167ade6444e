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
    emoji: Annotated[str, FOLDER] = "outputs/emoji"
    images: Positive = 40_000
    drawings: Positive = 8_000
    tower_steps: Count = 4_000
    perception_steps: Count = 500
    steps: Positive = 9_000
    sequences: Positive = 32
    examples: Positive = 9
    distinct_images: Positive = 96
    many_sequences: Share = 0.5
    explicit: Share = 0.2
    explicit_many: Share = 0.4
    noisy_sequences: Share = 0.25
    max_noise: Share = 0.3
    tower_lr: Above0 = 1.5e-3
    perception_lr: Above0 = 1.5e-3
    lr: Above0 = 1e-3
    weight_decay: Share = 0.05
    checkpoint_every: Positive = 250
