"""Shared-prefix scoring: many insertions into one prompt for the price of one token each.

An insertion touches the last prompt token only (and answer tokens after it), so keys and values of
everything before it are the same for every candidate, step and epoch: they are computed once a query
and kept. S candidates are then S branches of one sequence under a tree mask, each seeing the prefix and
itself, all at the same position; a pre-hook writes candidate s's vectors at its own tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import DynamicCache

from stv_exp.data.prompts import Prompt
from stv_exp.models.backbone import Backbone, positions
from stv_exp.models.heads import Insertion, inserted


@dataclass(frozen=True)
class Prefix:
    """A prompt up to its last token: per layer keys and values `[Hkv, P, D]`, and the token that follows."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    last_token: int
    position: int

    @property
    def n_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))


class PrefixCache:
    """Prefixes by query id, at most `max_bytes` of them; the least recently used is dropped and made again."""

    def __init__(self, backbone: Backbone, max_bytes: int) -> None:
        self.backbone = backbone
        self.max_bytes = max_bytes
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

    def warm(self, prompts: Sequence[Prompt], batch_size: int) -> None:
        """Compute prefixes in full batches while they fit: for queries that will all be asked for anyway."""
        for start in range(0, len(prompts), batch_size):
            if self.n_bytes >= self.max_bytes:
                return
            self.get(prompts[start : start + batch_size])


@torch.inference_mode()
def prefill(backbone: Backbone, prompts: Sequence[Prompt]) -> list[Prefix]:
    """Run all but the last token of each prompt once (vision tower included) and keep keys and values."""
    batch = backbone.encode(prompts)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    inputs = {**batch, "input_ids": ids[:, :-1], "attention_mask": mask[:, :-1]}
    cache = DynamicCache()
    backbone.model(**inputs, position_ids=positions(mask)[:, :-1], past_key_values=cache, logits_to_keep=1)
    prefixes = []
    for row, length in enumerate(mask[:, :-1].sum(1).tolist()):
        keys = tuple(k[row, :, -length:].clone() for k, _, _ in cache)
        values = tuple(v[row, :, -length:].clone() for _, v, _ in cache)
        prefixes.append(Prefix(keys, values, int(ids[row, -1]), length))
    return prefixes


@torch.inference_mode()
def score(
    backbone: Backbone, prefixes: Sequence[Prefix], answers: Sequence[Tensor], insertion: Insertion, when: str
) -> Tensor:
    """Log-likelihood `[Q, S, N]` of each answer token (0 beyond an answer's end) under S insertions a query.

    `insertion.vectors` is `[Q or 1, S, K, D]` (and `active` alike). Equals a full forward for each candidate.
    """
    q, s = len(prefixes), insertion.vectors.shape[1]
    n = max(len(a) for a in answers)
    device = backbone.device
    targets = torch.full((q, n), -1, device=device)
    for row, answer in enumerate(answers):
        targets[row, : len(answer)] = answer
    first = torch.tensor([[p.last_token] for p in prefixes], device=device)
    branch = torch.cat([first, targets[:, :-1].clamp(min=0)], 1)  # [Q, N] tokens of one candidate
    start = torch.tensor([[p.position] for p in prefixes], device=device)
    edited = 1 if when == "prompt" else n
    tokens = (torch.arange(s)[:, None] * n + torch.arange(edited)).flatten().to(device).expand(q, -1)
    with inserted(backbone.heads, _repeat(insertion, edited), lambda: tokens):
        logits = backbone.model(
            input_ids=branch.repeat(1, s),
            attention_mask=_tree_mask(prefixes, s, n, backbone.model.dtype, device),
            position_ids=(start + torch.arange(n, device=device)).repeat(1, s),
            past_key_values=_join(prefixes),
            use_cache=True,
        ).logits
    likelihood = logits.float().log_softmax(-1).unflatten(1, (s, n))
    index = targets.clamp(min=0)[:, None, :, None].expand(q, s, n, 1)
    return likelihood.gather(-1, index)[..., 0] * (targets >= 0)[:, None, :]


def _repeat(insertion: Insertion, times: int) -> Insertion:
    """One entry a token `[Q, S * times, K, D]` from one entry a candidate."""
    active = insertion.active
    return replace(
        insertion,
        vectors=insertion.vectors.repeat_interleave(times, dim=1),
        active=None if active is None else active.repeat_interleave(times, dim=1),
    )


def _join(prefixes: Sequence[Prefix]) -> DynamicCache:
    """A fresh cache over the kept tensors, left-padded to one length; the kept tensors are not written to."""
    if len(prefixes) == 1:
        pairs = zip(prefixes[0].keys, prefixes[0].values, strict=True)
        return DynamicCache([(k[None], v[None]) for k, v in pairs])
    longest = max(p.position for p in prefixes)

    def stack(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack([torch.nn.functional.pad(t, (0, 0, longest - t.shape[1], 0)) for t in tensors])

    layers = range(len(prefixes[0].keys))
    return DynamicCache(
        [(stack([p.keys[i] for p in prefixes]), stack([p.values[i] for p in prefixes])) for i in layers]
    )


def _tree_mask(prefixes: Sequence[Prefix], s: int, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Additive mask `[Q, 1, S * N, P + S * N]`: a token sees its prefix and its own branch up to itself."""
    longest = max(p.position for p in prefixes)
    lengths = torch.tensor([p.position for p in prefixes], device=device)
    sees_prefix = torch.arange(longest, device=device) >= longest - lengths[:, None]
    branch = torch.arange(s, device=device).repeat_interleave(n)
    own = (branch[:, None] == branch) & torch.ones(s * n, s * n, dtype=torch.bool, device=device).tril()
    q = len(prefixes)
    seen = torch.cat([sees_prefix[:, None].expand(q, s * n, longest), own.expand(q, -1, -1)], -1)
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
