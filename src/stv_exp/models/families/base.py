"""The defaults of a family: an `<image>` placeholder, images nested by prompt, positions that count tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

PICTURE_MASKS = ("cross_attention_mask",)  # which pictures each token sees, in families with layers for that
# Inputs with an entry a token.
BY_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", *PICTURE_MASKS)

Part = tuple[list[int], Mapping[str, Any]]  # rows of a batch, and what they are without the others


class Family:
    """How one family writes images into text and numbers its tokens."""

    image = "<image>"  # what the family's processor expands to an image's tokens
    image_options: ClassVar[dict[str, Any]] = {}  # of the call that prepares images
    chat_stops: tuple[str, ...] = ()  # tokens that end an answer in a chat, beside the checkpoint's own
    begins = False  # whether the processor writes a text's first token itself
    picture_layers: tuple[int, ...] = ()  # the layers that keep pictures, not tokens

    def __init__(self, model: Any) -> None:
        self.model = model

    def prepare(self, processor: Any) -> None:
        """Settings of the processor that the family needs."""

    def positions(self, batch: Mapping[str, Any]) -> Tensor:
        """Position ids `[B, T]` (`[3, B, T]` with M-RoPE) that count real tokens: padding does not shift a prompt."""
        return (batch["attention_mask"].long().cumsum(-1) - 1).clamp(min=0)

    def branch_positions(self, positions: Tensor) -> Tensor:
        """Position ids of text tokens `[B, T]` in the shape that the model takes."""
        return positions

    def parts(self, batch: Mapping[str, Any]) -> list[Part]:
        """A batch in parts whose rows do not change each other: most families need none."""
        return [([*range(len(batch["input_ids"]))], batch)]
