"""Idefics2, Idefics3 and SmolVLM: no image splitting, which costs four to sixteen times the image tokens."""

from __future__ import annotations

from typing import Any

from stv_exp.models.families.base import Family


class Idefics(Family):
    """Each image is encoded once, whole, as the task-vector papers do."""

    def prepare(self, processor: Any) -> None:
        processor.image_processor.do_image_splitting = False
