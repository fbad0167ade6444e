"""What the many-shot prompt says at each answer token of the support: computed once, kept for the training."""

from __future__ import annotations

from itertools import chain

from torch import Tensor

from stv_exp.config import Config, learned_from
from stv_exp.data.prompts import Prompt, longest_first, make_prompt
from stv_exp.data.task import Task
from stv_exp.models.answers import Said, said
from stv_exp.models.backbone import Backbone
from stv_exp.stages.features import demonstration_features
from stv_exp.stages.predict import predict
from stv_exp.stages.scan import support_sampler
from stv_exp.stages.trainer import Stage


class Teacher(Stage):
    """Runs a batch of prompts with their answers, nothing inserted."""

    stage = "teacher"

    def __init__(self, backbone: Backbone, config: Config, observed: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.observed = observed

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> list[tuple[Tensor, Tensor | None]]:
        ended = self.config.train.to_the_end
        answers = [self.backbone.encode_answer(prompt, ended) for prompt in batch]
        found = said(self.backbone, batch, answers, observed=self.observed)
        return [part.kept() for part in found.by_answer(answers)]


def contexts(backbone: Backbone, task: Task, config: Config) -> list[Prompt]:
    """Each support example behind `train.shots` demonstrations, never itself; the same draw at every call."""
    sampler = support_sampler(task, config, demonstration_features(backbone, task, config))
    template, shots = learned_from(config).template, config.train.shots
    return [make_prompt(template, q, sampler.draw(q, shots, "teacher")) for q in task.support]


def taught(backbone: Backbone, task: Task, config: Config, observed: str) -> dict[str, Said]:
    """The teacher's logits `[N, V]` and, at a site `observed`, its activations `[L, N, hidden]`, by example."""
    prompts = contexts(backbone, task, config)
    prompts = [prompts[i] for i in longest_first(prompts)]
    parts = predict(Teacher(backbone, config, observed), prompts, config.trainer)
    answers = (Said(*kept).copied() for kept in chain.from_iterable(parts))
    return dict(zip((prompt.query.id for prompt in prompts), answers, strict=True))
