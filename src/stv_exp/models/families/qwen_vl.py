"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: three position rows (M-RoPE), of which an image advances each differently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stv_exp.models.families.base import Family


class QwenVL(Family):
    """After an image, text goes on at the largest of the three positions, which is not the token count."""

    image = "<|vision_start|><|image_pad|><|vision_end|>"

    def positions(self, batch: Mapping[str, Any]) -> Tensor:
        if batch.get("image_grid_thw") is None:
            return self.branch_positions(super().positions(batch))
        positions, _ = self.model.model.get_rope_index(
            input_ids=batch["input_ids"],
            mm_token_type_ids=batch["mm_token_type_ids"],
            image_grid_thw=batch["image_grid_thw"],
            attention_mask=batch["attention_mask"],
        )
        return positions

    def branch_positions(self, positions: Tensor) -> Tensor:
        return positions.expand(3, *positions.shape)
