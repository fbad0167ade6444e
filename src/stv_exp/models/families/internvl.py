"""InternVL: its processor expands `<IMG_CONTEXT>`; no cropping of images into tiles."""

from __future__ import annotations

from typing import Any, ClassVar

from stv_exp.models.families.base import Family


class InternVL(Family):
    """InternVL in transformers' own format (repositories that end in `-hf`)."""

    image = "<IMG_CONTEXT>"
    image_options: ClassVar[dict[str, Any]] = {"crop_to_patches": False}
