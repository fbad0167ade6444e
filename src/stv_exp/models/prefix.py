"""What all insertions into one prompt share: keys, values and states of everything before its last token.

An insertion touches the last prompt token only (and answer tokens after it), so these are the same for every
candidate, step and epoch: computed once a query, vision tower included, and kept within a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache

from stv_exp.data.prompts import Prompt
from stv_exp.errors import StvError
from stv_exp.models.backbone import Backbone
from stv_exp.models.caches import Kept, empty_cache, joined, of_row
from stv_exp.models.edits import only_logits
from stv_exp.models.families.base import BY_TOKEN, PICTURE_MASKS
from stv_exp.models.recent import Recent, half_of_what_is_free


@dataclass(frozen=True)
class Prefix:
    """A prompt up to its last token: what each layer keeps of its `length` tokens, and the token that follows.

    `position` is that token's position, which is not the length where an image's tokens share positions (M-RoPE).
    `seen` are inputs of that token which its branches have too (the pictures that it sees). `states` are kept for
    branches that start above the first layer (see `branches`).
    """

    layers: tuple[Kept, ...]
    length: int
    last_token: int
    position: int
    seen: dict[str, Tensor] = field(default_factory=dict, repr=False)
    states: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.length

    @property
    def n_bytes(self) -> int:
        return sum(t.nbytes for layer in self.layers for t in layer.values())


class PrefixCache:
    """Prefixes by query id, at most `max_bytes` of them (0: what fits); one that was dropped is made again.

    In float32 no result depends on the bound; in half precision a prefix that is made again in another batch differs
    by rounding.
    """

    def __init__(self, backbone: Backbone, max_bytes: int) -> None:
        self.backbone = backbone
        self.kept: Recent[Prefix] = Recent(max_bytes or half_of_what_is_free(backbone.device))
        self.prefilled = 0

    def get(self, prompts: Sequence[Prompt]) -> list[Prefix]:
        """The prefixes of `prompts`, computing what is not kept in one batch."""
        missing = [p for p in prompts if p.query.id not in self.kept]
        found = {p.query.id: self.kept[p.query.id] for p in prompts if p.query.id in self.kept}
        if missing:
            found |= zip([p.query.id for p in missing], prefill(self.backbone, missing), strict=True)
            self.prefilled += len(missing)
        self.kept.keep(found)
        return [found[p.query.id] for p in prompts]

    def warm(self, prompts: Sequence[Prompt], batch_size: int, advance: Callable[[int], object] = int) -> bool:
        """Compute prefixes in full batches while they fit; returns whether all are kept.

        `advance` is told of each batch how many there are in it.
        """
        for start in range(0, len(prompts), batch_size):
            advance(len(self.get(prompts[start : start + batch_size])))
            if not all(prompt.query.id in self.kept for prompt in prompts[: start + batch_size]):
                return False
        return True


@torch.no_grad()  # not inference mode: a search by gradient reads what is kept
def prefill(backbone: Backbone, prompts: Sequence[Prompt]) -> list[Prefix]:
    """Run all but the last token of each prompt once and keep what its layers do."""
    batch = backbone.encode(prompts)
    if batch["input_ids"].shape[1] < 2:
        raise StvError(f"Query {prompts[0].query.id} is one token long; give dataset.template.query a text around it.")
    found: dict[int, Prefix] = {}
    for rows, part in backbone.family.parts(batch):
        found |= zip(rows, _prefill(backbone, part), strict=True)
    return [found[row] for row in range(len(prompts))]


def _prefill(backbone: Backbone, batch: Mapping[str, Tensor]) -> list[Prefix]:
    family, positions = backbone.family, backbone.family.positions(batch)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    before = {name: value[:, :-1] if name in BY_TOKEN else value for name, value in batch.items()}
    cache = empty_cache(backbone.model.config)
    with only_logits(backbone.model, torch.zeros_like(ids[:, :-1], dtype=torch.bool)):
        backbone.forward(before, position_ids=positions[..., :-1], past_key_values=cache, use_cache=True)
    last = positions[..., -1].reshape(-1, len(ids))[0].tolist()
    prefixes = []
    for row, length in enumerate(mask[:, :-1].sum(1).tolist()):
        seen = {name: batch[name][row, -1] for name in PICTURE_MASKS if name in batch}
        layers = of_row(cache, row, length, family.picture_layers)
        prefixes.append(Prefix(layers, length, int(ids[row, -1]), last[row], seen))
    return prefixes


def join(prefixes: Sequence[Prefix], times: int = 1) -> DynamicCache:
    """A fresh cache over the kept tensors, left-padded to one length, each row `times` over.

    The kept tensors are not written to.
    """
    return joined([prefix.layers for prefix in prefixes], times)
