"""Mllama (Llama 3.2 Vision): some layers attend to pictures instead of tokens, and text to those before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stv_exp.models.families.base import Family, Part

_PICTURES = {"pixel_values": 1, "aspect_ratio_ids": 1, "aspect_ratio_mask": 1, "cross_attention_mask": 2}  # their axis


class Mllama(Family):
    """Its layers of cross-attention hold no head here; what they keep of pictures is shared as the prefix is."""

    image = "<|image|>"
    begins = True  # behind a picture that comes first

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.picture_layers = tuple(model.config.get_text_config(decoder=True).cross_attention_layers)

    def parts(self, batch: Mapping[str, Any]) -> list[Part]:
        """Rows of equally many pictures: transformers lets text before the first picture see all there is room for."""
        if "aspect_ratio_ids" not in batch:
            return super().parts(batch)
        pictures = (batch["aspect_ratio_ids"] > 0).sum(1)
        return [
            ((rows := (pictures == n).nonzero().flatten()).tolist(), _with(batch, rows, n))
            for n in pictures.unique().tolist()
        ]


def _with(batch: Mapping[str, Tensor], rows: Tensor, pictures: int) -> dict[str, Tensor]:
    kept = {name: value[rows] for name, value in batch.items() if pictures or name not in _PICTURES}
    return {name: v.narrow(_PICTURES[name], 0, pictures) if name in _PICTURES else v for name, v in kept.items()}
