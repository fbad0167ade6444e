"""Evaluation (STV, step 4): greedy answers on the eval split, with a task vector inserted or by prompting alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import chain

from stv_exp.config import Config
from stv_exp.data.prompts import DemonstrationSampler, Prompt, longest_first, make_prompt
from stv_exp.data.task import Task
from stv_exp.metrics import exact_match
from stv_exp.models.backbone import Backbone
from stv_exp.stages.trainer import Stage, predict
from stv_exp.task_vector import TaskVector


@dataclass(frozen=True)
class Prediction:
    """One line of `predictions.jsonl`."""

    id: str
    question: str
    answers: list[str]
    prediction: str
    correct: float
    demonstration_ids: list[str]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


class Evaluation(Stage):
    """Generates the answers of a batch of prompts."""

    def __init__(self, backbone: Backbone, vector: TaskVector | None, config: Config) -> None:
        super().__init__()
        self.backbone = backbone
        self.vector = vector
        self.config = config

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> list[str]:
        limit, when = self.config.dataset.max_new_tokens, self.config.insertion.when
        return self.backbone.generate(self.backbone.encode(batch, room=limit), limit, self.vector, when)


def evaluate(backbone: Backbone, task: Task, vector: TaskVector | None, config: Config) -> list[Prediction]:
    """Answer every eval query behind `method.shots` demonstrations (none where a task vector stands for them)."""
    sampler = DemonstrationSampler(task, config.seed, config.dataset.label_noise)
    prompts = [
        make_prompt(config.dataset.template, q, sampler.draw(q, config.method.shots, "eval")) for q in task.evaluation
    ]
    order = longest_first(prompts)
    parts = predict(Evaluation(backbone, vector, config), [prompts[i] for i in order], config.trainer)
    texts = dict(zip(order, chain.from_iterable(parts), strict=True))
    return [_judge(prompt, texts[i]) for i, prompt in enumerate(prompts)]


def accuracy(predictions: list[Prediction]) -> float:
    """Mean exact match, 0-1."""
    return sum(p.correct for p in predictions) / len(predictions)


def _judge(prompt: Prompt, text: str) -> Prediction:
    query = prompt.query
    demonstrations = [d.id for d in prompt.demonstrations]
    correct = exact_match(text, query.answers)
    return Prediction(query.id, query.question, list(query.answers), text, correct, demonstrations)
