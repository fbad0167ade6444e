"""A task vector: what a search found, and the only thing a user needs to carry to another script."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stv_exp.artefact import Artefact
from stv_exp.errors import StvError
from stv_exp.models.heads import Heads, Insertion, find_heads, inserted, last_positions

WHEN = ("every_step", "prompt")


@dataclass(frozen=True, eq=False)
class TaskVector(Artefact):
    """Locations `[K, 2]` (layer, head) and the head activations `[K, head_dim]` to insert there.

    `mode` is `replace` or `add`; `metadata` says where the vector comes from (model, method, dataset).
    """

    locations: Tensor
    vectors: Tensor
    mode: str = "replace"
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.locations.dim() != 2 or self.locations.shape[1] != 2 or self.vectors.dim() != 2:
            raise StvError("A TaskVector needs locations of shape [K, 2] and vectors of shape [K, head_dim].")
        if len(self.locations) != len(self.vectors):
            raise StvError(f"A TaskVector has {len(self.locations)} locations but {len(self.vectors)} vectors.")
        if not torch.isfinite(self.vectors).all():
            raise StvError("A TaskVector has NaN or infinite values in its vectors; make it anew.")

    def check(self, heads: Heads) -> None:
        """Raise `StvError` where this vector was made for a model of another shape."""
        layers, n_heads = (self.locations.max(0).values + 1).tolist() if len(self.locations) else (0, 0)
        if layers > heads.n_layers or n_heads > heads.n_heads:
            raise StvError(
                f"The task vector uses layer {layers - 1} and head {n_heads - 1}, but the model has "
                f"{heads.n_layers} layers of {heads.n_heads} heads; load the model it was made for."
            )
        if len(self.vectors) and self.vectors.shape[1] != heads.head_dim:
            raise StvError(
                f"The task vector has head_dim {self.vectors.shape[1]}, but the model has {heads.head_dim}; "
                "load the model it was made for."
            )

    @contextmanager
    def inserted(self, model: PreTrainedModel, when: str = "every_step") -> Iterator[PreTrainedModel]:
        """Within the block, `model` runs with this vector at the last token of every sequence.

        `model` is any supported transformers model; `when` is `every_step` (the prompt and each generated
        token) or `prompt`. Batches may be padded on either side; insertion ends with the block, also on error.
        """
        if when not in WHEN:
            raise StvError(f"when={when!r} is unknown; choose one of {', '.join(WHEN)}.")
        heads = find_heads(model)
        self.check(heads)
        tokens: list[Tensor | None] = [None]

        def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tokens[0] = _last_tokens(args, kwargs, when)

        handle = model.register_forward_pre_hook(look, with_kwargs=True)
        try:
            with inserted(heads, Insertion(self.locations, self.vectors, mode=self.mode), lambda: tokens[0]):
                yield model
        finally:
            handle.remove()


def _last_tokens(args: tuple[Any, ...], kwargs: dict[str, Any], when: str) -> Tensor | None:
    """Token indices `[B, 1]` that the coming forward shall edit, None for none."""
    ids = kwargs.get("input_ids", args[0] if args else None)
    ids = kwargs["inputs_embeds"] if ids is None else ids
    past = kwargs.get("past_key_values")
    if when == "prompt" and past is not None and past.get_seq_length() > 0:
        return None
    return last_positions(kwargs.get("attention_mask"), ids.shape[0], ids.shape[1], ids.device)[:, None]
