"""Whole forwards of prompts and their answers, with gradients where an edit is attached that has parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stv_exp.data.prompts import Prompt
from stv_exp.models.attached import Attach
from stv_exp.models.backbone import Backbone
from stv_exp.models.edits import captured, hooked, only_logits
from stv_exp.models.families.base import PICTURE_MASKS
from stv_exp.models.sites import Site


@dataclass(frozen=True)
class Said:
    """What a model says at the `n` answer tokens of a batch, row by row.

    Logits `[n, V]` and, if asked for, activations `[L, n, hidden]` at a site, both at the token before each.
    """

    logits: Tensor
    states: Tensor | None = None

    def by_answer(self, answers: Sequence[Tensor]) -> list[Said]:
        """One for each answer of the batch."""
        lengths = [len(answer) for answer in answers]
        states = self.states.split(lengths, 1) if self.states is not None else [None] * len(answers)
        return [Said(*both) for both in zip(self.logits.split(lengths), states, strict=True)]

    def first(self, n: int | None) -> Said:
        """The first `n` tokens (None: all) of one answer."""
        return Said(self.logits[:n], None if self.states is None else self.states[:, :n])

    def kept(self) -> tuple[Tensor, Tensor | None]:
        """Both, on the CPU: what travels between processes."""
        return self.logits.cpu(), None if self.states is None else self.states.cpu()

    def copied(self) -> Said:
        """A copy that is no tensor of inference mode, which gradients of others could not need."""
        return Said(self.logits.clone(), None if self.states is None else self.states.clone())


def joined(parts: Sequence[Said]) -> Said:
    """Several answers in a row."""
    states = [part.states for part in parts if part.states is not None]
    return Said(torch.cat([part.logits for part in parts]), torch.cat(states, 1) if states else None)


def plain(_: Callable[[], Tensor]) -> AbstractContextManager[Any]:
    """No edit attached."""
    return nullcontext()


def said(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    answers: Sequence[Tensor],
    attach: Attach = plain,
    when: str = "every_step",
    observed: str = "",
) -> Said:
    """One forward of each prompt with its answer; edits of `when` act at the tokens where task vectors do.

    `observed` is the site whose activations are asked for.
    """
    batch = backbone.encode(prompts, room=max(map(len, answers)))
    found: dict[int, Said] = {}
    for rows, part in backbone.family.parts(batch):
        own = [answers[row] for row in rows]
        found |= zip(rows, _part(backbone, part, own, attach, when, observed).by_answer(own), strict=True)
    return joined([found[row] for row in range(len(prompts))])


def _part(
    backbone: Backbone, part: Mapping[str, Any], answers: Sequence[Tensor], attach: Attach, when: str, observed: str
) -> Said:
    length = part["input_ids"].shape[1]
    inputs = extended(part, [answer[:-1] for answer in answers])
    n = inputs["input_ids"].shape[1] - length + 1
    steps = torch.arange(n, device=backbone.device)
    scored = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    scored[:, length - 1 :] = steps < torch.tensor([[len(a)] for a in answers], device=backbone.device)
    tokens = (length - 1 + steps[: 1 if when == "prompt" else n]).expand(len(answers), -1)
    site, positions = backbone.site(observed) if observed else None, backbone.family.positions(inputs)
    with attach(lambda: tokens), _observed(site, scored) as states, only_logits(backbone.model, scored):
        logits = backbone.forward(inputs, position_ids=positions, use_cache=False).logits
    logits = logits[scored] if logits.shape[:2] == scored.shape else logits[0]
    return Said(logits.float(), torch.stack(states).float() if observed else None)


@contextmanager
def _observed(site: Site | None, scored: Tensor) -> Iterator[list[Tensor]]:
    """Record the activations `[n, hidden]` of each layer in turn where `scored [B, T]`."""
    found: list[Tensor] = []

    def read(_: int, activations: Tensor) -> None:
        found.append(activations[scored.to(activations.device)].to(scored.device))

    with hooked(site, read) if site else nullcontext():
        yield found


def extended(batch: Mapping[str, Any], more: Sequence[Tensor]) -> dict[str, Any]:
    """Inputs with other text tokens behind each row's prompt, padded on the right.

    What the prompt's last token sees beside text, they do too.
    """
    ids = pad_sequence(list(more), batch_first=True)
    real = [torch.ones_like(tokens) for tokens in more]
    new = {"input_ids": ids, "attention_mask": pad_sequence(real, batch_first=True)}
    new |= {name: torch.zeros_like(ids) for name in ("token_type_ids", "mm_token_type_ids") if name in batch}
    new |= {name: batch[name][:, -1:].expand(-1, ids.shape[1], -1, -1) for name in PICTURE_MASKS if name in batch}
    return {**batch, **{name: torch.cat([batch[name], value], 1) for name, value in new.items()}}


@torch.no_grad()
def last_states(backbone: Backbone, prompts: Sequence[Prompt], answers: Sequence[Tensor], site: str) -> Tensor:
    """Activations `[B, L, ...]` at the last token of each prompt and its answer, which may be empty."""
    batch = backbone.encode(prompts, room=max(map(len, answers)))
    found: dict[int, Tensor] = {}
    for rows, part in backbone.family.parts(batch):
        own = [answers[row] for row in rows]
        inputs = extended(part, own)
        last = part["input_ids"].shape[1] - 1 + torch.tensor([len(a) for a in own], device=backbone.device)
        none = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
        with captured(backbone.site(site), last) as states, only_logits(backbone.model, none):
            backbone.forward(inputs, position_ids=backbone.family.positions(inputs), use_cache=False)
        found |= zip(rows, torch.stack([state.float().cpu() for state in states], 1), strict=True)
    return torch.stack([found[row] for row in range(len(prompts))])
