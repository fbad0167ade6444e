"""Models with a state instead of attention in some layers (linear attention, convolutions)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stv_exp.models.families.base import BY_TOKEN, Family, Part


class Recurrent(Family):
    """Padding may enter the state, in transformers' own code: rows of one length run together, without any.

    Rows with pictures cannot be taken apart here and run as they are.
    """

    def parts(self, batch: Mapping[str, Any]) -> list[Part]:
        if not set(batch) <= set(BY_TOKEN):
            return super().parts(batch)
        lengths = batch["attention_mask"].sum(1)
        parts: list[Part] = []
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().flatten()
            parts.append((rows.tolist(), {name: value[rows][:, -length:] for name, value in batch.items()}))
        return parts


class Lfm2(Recurrent):
    """LFM2 multiplies padding by zero before its convolutions, which a bias would undo."""

    def parts(self, batch: Mapping[str, Any]) -> list[Part]:
        exact = not self.model.config.get_text_config(decoder=True).conv_bias
        return Family.parts(self, batch) if exact else super().parts(batch)
