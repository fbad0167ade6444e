"""The floor of a search: its tokens behind their prefixes, with no hooks, sampling or update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from stv_exp.bench.subject import Subject
from stv_exp.models.backbone import Backbone
from stv_exp.models.prefix import Prefix, join, prefill
from stv_exp.models.scoring import tree_inputs


@dataclass(frozen=True)
class Branches:
    """`s` branches of each query under a tree mask, as the search scores them, of answers that are equally long."""

    backbone: Backbone
    prefixes: Sequence[Prefix]
    answers: Sequence[Tensor]
    inputs: dict[str, Any]
    s: int

    @classmethod
    def of(cls, subject: Subject, queries: int, s: int) -> Branches:
        """The branches of the subject's first queries."""
        backbone, prompts = subject.backbone, subject.prompts(queries)
        prefixes = prefill(backbone, prompts)
        answers = [backbone.encode_answer(prompt) for prompt in prompts]
        inputs, positions = tree_inputs(backbone, prefixes, answers, s)
        return cls(backbone, prefixes, answers, {**inputs, "position_ids": positions}, s)

    @property
    def n_tokens(self) -> int:
        """Tokens of all queries and branches."""
        return self.inputs["input_ids"].numel()

    @torch.inference_mode()
    def forward(self) -> Tensor:
        """Logits of every token."""
        return self._logits()

    @torch.enable_grad()
    def forward_backward(self) -> None:
        """The answers' cross-entropy and its gradient in the tokens' embeddings: through all layers, to no weight."""
        embeddings = self.backbone.model.get_input_embeddings()
        handle = embeddings.register_forward_hook(lambda _, args, output: output.requires_grad_())
        try:
            logits = self._logits()
        finally:
            handle.remove()
        wanted = torch.stack(list(self.answers)).repeat(1, self.s)
        cross_entropy(logits.flatten(0, 1).float(), wanted.flatten()).backward()

    def _logits(self) -> Tensor:
        return self.backbone.model(**self.inputs, past_key_values=join(self.prefixes), use_cache=True).logits
