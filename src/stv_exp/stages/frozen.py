"""What the start of a training asks the frozen model: mean activations over the support."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from stv_exp.config import Config
from stv_exp.data.prompts import Prompt, make_prompt
from stv_exp.data.task import Task
from stv_exp.models.answers import last_states
from stv_exp.models.attached import shape_of
from stv_exp.models.backbone import Backbone
from stv_exp.stages.predict import predict
from stv_exp.stages.teacher import contexts
from stv_exp.stages.trainer import Stage


class Means(Stage):
    """Captures a batch of prompts at their last token, answers included if asked for."""

    stage = "means"

    def __init__(self, backbone: Backbone, config: Config, site: str, answered: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.site = site
        self.answered = answered

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> Tensor:
        answers = [self.backbone.encode_answer(prompt, self.config.dataset.template) for prompt in batch]
        kept = answers if self.answered else [answer[:0] for answer in answers]
        return last_states(self.backbone, batch, kept, self.site)


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
        prompts = self._prompts[of]()
        stage = Means(self.backbone, self.config, site, of == "answers")
        parts: Sequence[Tensor] = predict(stage, prompts, self.config.trainer)
        rows = [self.backbone.site(site).layers.index(layer) for layer in self.shape.layers]
        return torch.cat(list(parts))[:, rows].mean(0)

    @property
    def _prompts(self) -> dict[str, Callable[[], list[Prompt]]]:
        template = self.config.dataset.template
        return {
            "answers": lambda: [make_prompt(template, example) for example in self.task.support],
            "contexts": lambda: contexts(self.backbone, self.task, self.config),
        }
