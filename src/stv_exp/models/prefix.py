"""What all insertions into one prompt share: keys and values of everything before its last token.

An insertion touches the last prompt token only (and answer tokens after it), so these are the same for every
candidate, step and epoch: computed once a query, vision tower included, and kept within a bound.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil
import torch
from torch import Tensor
from transformers import DynamicCache

from stv_exp.data.prompts import Prompt
from stv_exp.errors import StvError
from stv_exp.models.backbone import Backbone
from stv_exp.models.edits import only_logits

_BY_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")  # inputs with an entry a token


@dataclass(frozen=True)
class Prefix:
    """A prompt up to its last token: per layer keys and values `[Hkv, P, D]`, and the token that follows.

    `position` is that token's position, which is not P where an image's tokens share positions (M-RoPE). `states` are
    kept for branches that start above the first layer (see `branches`).
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    last_token: int
    position: int
    states: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.keys[0].shape[1]

    @property
    def n_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))


class PrefixCache:
    """Prefixes by query id, at most `max_bytes` of them (0: what fits); the least recently used is dropped, made again.

    In float32 no result depends on the bound; in half precision a prefix that is made again in another batch differs
    by rounding.
    """

    def __init__(self, backbone: Backbone, max_bytes: int) -> None:
        self.backbone = backbone
        self.max_bytes = max_bytes or _half_of_what_is_free(backbone.device)
        self.prefilled = 0
        self.n_bytes = 0
        self._kept: OrderedDict[str, Prefix] = OrderedDict()

    def get(self, prompts: Sequence[Prompt]) -> list[Prefix]:
        """The prefixes of `prompts`, computing what is not kept in one batch."""
        missing = [p for p in prompts if p.query.id not in self._kept]
        found = {p.query.id: self._kept[p.query.id] for p in prompts if p.query.id in self._kept}
        if missing:
            found |= zip([p.query.id for p in missing], prefill(self.backbone, missing), strict=True)
            self.prefilled += len(missing)
            self.n_bytes += sum(found[p.query.id].n_bytes for p in missing)
        for key, prefix in found.items():
            self._kept[key] = prefix
            self._kept.move_to_end(key)
        while self.n_bytes > self.max_bytes:
            self.n_bytes -= self._kept.popitem(last=False)[1].n_bytes
        return [found[p.query.id] for p in prompts]

    def warm(self, prompts: Sequence[Prompt], batch_size: int) -> bool:
        """Compute prefixes in full batches while they fit; returns whether all are kept."""
        for start in range(0, len(prompts), batch_size):
            if self.n_bytes >= self.max_bytes:
                break
            self.get(prompts[start : start + batch_size])
        return all(prompt.query.id in self._kept for prompt in prompts)


def _half_of_what_is_free(device: torch.device) -> int:
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return free // 2


@torch.no_grad()  # not inference mode: a search by gradient reads what is kept
def prefill(backbone: Backbone, prompts: Sequence[Prompt]) -> list[Prefix]:
    """Run all but the last token of each prompt once and keep keys and values."""
    batch = backbone.encode(prompts)
    positions = backbone.family.positions(batch)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if ids.shape[1] < 2:
        raise StvError(f"Query {prompts[0].query.id} is one token long; give dataset.template.query a text around it.")
    before = {name: value[:, :-1] if name in _BY_TOKEN else value for name, value in batch.items()}
    cache = DynamicCache()
    with only_logits(backbone.model, torch.zeros_like(ids[:, :-1], dtype=torch.bool)):
        backbone.forward(before, position_ids=positions[..., :-1], past_key_values=cache, use_cache=True)
    last = positions[..., -1].reshape(-1, len(prompts))[0].tolist()
    prefixes = []
    for row, length in enumerate(mask[:, :-1].sum(1).tolist()):
        keys = tuple(k[row, :, k.shape[2] - length :].clone() for k, _, _ in cache)
        values = tuple(v[row, :, v.shape[2] - length :].clone() for _, v, _ in cache)
        prefixes.append(Prefix(keys, values, int(ids[row, -1]), last[row]))
    return prefixes


def join(prefixes: Sequence[Prefix], times: int = 1) -> DynamicCache:
    """A fresh cache over the kept tensors, left-padded to one length, each row `times` over.

    The kept tensors are not written to.
    """
    longest = max(map(len, prefixes))

    def stack(tensors: Sequence[Tensor]) -> Tensor:
        if len(tensors) == 1:
            return tensors[0].expand(times, *tensors[0].shape)
        padded = [torch.nn.functional.pad(t, (0, 0, longest - t.shape[1], 0)) for t in tensors]
        return torch.stack(padded).repeat_interleave(times, 0)

    layers = range(len(prefixes[0].keys))
    return DynamicCache(
        [(stack([p.keys[i] for p in prefixes]), stack([p.values[i] for p in prefixes])) for i in layers]
    )
