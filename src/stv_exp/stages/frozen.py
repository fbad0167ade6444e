"""What the start of a training asks the frozen model: mean activations over the support."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from stv_exp.config import Config, learned_from
from stv_exp.data.prompts import Prompt, apart, make_prompt
from stv_exp.data.task import Task
from stv_exp.models.answers import last_states
from stv_exp.models.attached import shape_of
from stv_exp.models.backbone import Backbone
from stv_exp.stages.predict import predict
from stv_exp.stages.teacher import contexts
from stv_exp.stages.trainer import Stage


class Means(Stage):
    """Captures a batch of prompts at their last token, with `behind` them nothing, the answer, or also its end."""

    stage = "means"

    def __init__(self, backbone: Backbone, site: str, behind: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.site = site
        self.behind = behind

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> Tensor:
        behind = [_behind(self.backbone, prompt, self.behind) for prompt in batch]
        return last_states(self.backbone, batch, behind, self.site)


class FrozenModel:
    """The `Frozen` that an edit's start is handed."""

    def __init__(self, backbone: Backbone, task: Task, config: Config) -> None:
        self.backbone = backbone
        self.task = task
        self.config = config
        self.shape = shape_of(backbone.site, config.train.layers)
        self.generator = Generator().manual_seed(config.seed)

    def mean(self, site: str, of: str) -> Tensor:
        """Mean activation a layer `[L, H, D]` or `[L, hidden]` at answers or contexts; see `Frozen.mean`."""
        return self._captured(self._prompts[of](), site, "end" if of == "answers" else "nothing").mean(0)

    def moved(self, site: str, n: int, alone: bool) -> Tensor:
        """What the answers of `n` support examples change `[n, 1 + L, hidden]`; see `Frozen.moved`."""
        drawn = random.Random(f"{self.config.seed}/moved").sample(self.task.support, n)
        template = learned_from(self.config).template
        if alone:
            asked, said = zip(*(apart(template, example) for example in drawn), strict=True)
            return self._along(said, site, "nothing") - self._along(asked, site, "nothing")
        prompts = [make_prompt(template, example) for example in drawn]
        return self._along(prompts, site, "answer") - self._along(prompts, site, "nothing")

    def _along(self, prompts: Sequence[Prompt], site: str, behind: str) -> Tensor:
        """The embedding of the last token and the activations of the edited layers there, `[N, 1 + L, hidden]`."""
        told = ((self.backbone.encode([p])["input_ids"][0], _behind(self.backbone, p, behind)) for p in prompts)
        ids = [torch.cat(both)[-1] for both in told]
        embedding = self.backbone.model.get_input_embeddings()
        with torch.no_grad():
            embedded = embedding(torch.stack(ids).to(embedding.weight.device)).float().cpu()
        return torch.cat([embedded[:, None], self._captured(prompts, site, behind)], 1)

    def _captured(self, prompts: Sequence[Prompt], site: str, behind: str) -> Tensor:
        """Activations of the edited layers, `[N, L, ...]`, in float32."""
        parts: Sequence[Tensor] = predict(Means(self.backbone, site, behind), list(prompts), self.config.trainer)
        rows = [self.backbone.site(site).layers.index(layer) for layer in self.shape.layers]
        return torch.cat(list(parts))[:, rows].float()

    @property
    def _prompts(self) -> dict[str, Callable[[], list[Prompt]]]:
        template = learned_from(self.config).template
        return {
            "answers": lambda: [make_prompt(template, example) for example in self.task.support],
            "contexts": lambda: contexts(self.backbone, self.task, self.config),
        }


def _behind(backbone: Backbone, prompt: Prompt, what: str) -> Tensor:
    """Tokens of nothing, of the `answer`, or of it and its `end`."""
    answer = backbone.encode_answer(prompt, ended=what == "end")
    return answer[:0] if what == "nothing" else answer
