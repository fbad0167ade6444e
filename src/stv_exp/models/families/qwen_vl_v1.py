"""Qwen-VL (v1), natively: its processor puts 256 places where `<img></img>` stands."""

from __future__ import annotations

from stv_exp.models.families.base import Family


class QwenVLv1(Family):
    """One row of positions; in a chat an answer ends with its turn too, which the checkpoint left to its code."""

    image = "<img></img>"
    chat_stops = ("<|im_end|>", "<|im_start|>")
