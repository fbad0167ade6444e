"""Gemma 3: its processor expands `<start_of_image>`."""

from __future__ import annotations

from stv_exp.models.families.base import Family


class Gemma3(Family):
    """Gemma 3 with its vision tower. Its sliding-window layers are `scoring`'s business, as for any model."""

    image = "<start_of_image>"
