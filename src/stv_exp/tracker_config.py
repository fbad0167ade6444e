"""The settings of the view that a tracker gives of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from stv_exp.ranges import Count, OneOf, Text, Texts

PROJECT = Text(r"[^/\\#?%:\x00-\x1f\x7f]{1,128}", "a name without / \\ # ? % and :, at most 128 characters")
ENTITY = Text(r"[\w.-]{0,128}", "the name of a user or a team")
TAGS = Texts(r"[^\x00-\x1f\x7f]{1,64}", "a list of words, each of at most 64 characters")


@dataclass
class TrackerConfig:
    """`name` is wandb, tensorboard, csv or none; `mode` is W&B's offline or online.

    `entity` is the user or team that W&B's `project` belongs to (empty: your default), `tags` are your own beside those
    of model, dataset, method and study. So many `images` of queries are shown. `publish` sends runs that are looked up.
    """

    name: Annotated[str, OneOf("wandb", "tensorboard", "csv", "none")] = "wandb"
    mode: Annotated[str, OneOf("offline", "online")] = "offline"
    project: Annotated[str, PROJECT] = "stv_exp"
    entity: Annotated[str, ENTITY] = ""
    tags: Annotated[list[str], TAGS] = field(default_factory=list)
    images: Count = 16
    publish: bool = False
