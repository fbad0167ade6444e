"""Evaluation (STV, step 4): answers on the eval split, with a task vector inserted or by prompting alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from stv_exp.artefacts.readings import Classes
from stv_exp.config import Config, learned_from
from stv_exp.data.demonstrations import DemonstrationSampler, check_shots
from stv_exp.data.prompts import Prompt, longest_first, make_prompt
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError
from stv_exp.metrics import Metric, letter_of, metric
from stv_exp.models.answers import said
from stv_exp.models.backbone import Backbone
from stv_exp.models.edits import Insertion
from stv_exp.models.scorer import Scorer
from stv_exp.stages.features import demonstration_features
from stv_exp.stages.predict import predict
from stv_exp.stages.reading import Reader
from stv_exp.stages.trainer import Stage
from stv_exp.statistics import interval
from stv_exp.task_vector import TaskVector
from stv_exp.trained_edit import TrainedEdit, attaching

Inserted = TaskVector | TrainedEdit
Found = Inserted | Classes  # what a method answers with beside prompting


@dataclass(frozen=True)
class Prediction:
    """One line of `predictions.jsonl`; `correct` is its score in 0-1."""

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

    stage = "evaluation"

    def __init__(self, backbone: Backbone, vector: Inserted | None, config: Config) -> None:
        super().__init__()
        self.backbone = backbone
        self.vector = vector
        self.config = config

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> list[str]:
        limit = self.config.dataset.max_new_tokens
        return self.backbone.generate(self.backbone.encode(batch, room=limit), limit, self.vector)


class Classification(Stage):
    """Answers each prompt with the label whose tokens have the highest mean log-likelihood behind it."""

    stage = "evaluation"

    def __init__(self, backbone: Backbone, vector: Inserted | None, config: Config, labels: Sequence[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self.scorer = Scorer(backbone, config.policy.cache_bytes)
        self.edit = vector if isinstance(vector, TrainedEdit) else None
        self.insertion = _insertion(backbone, None if isinstance(vector, TrainedEdit) else vector)
        self.config = config
        self.labels = labels

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> list[str]:
        return [self.labels[i] for i in self.likelihoods(batch).argmax(-1).tolist()]

    def likelihoods(self, batch: Sequence[Prompt]) -> Tensor:
        """Mean log-likelihood `[Q, labels]` of the tokens of each label; the prompts are run once for all of them."""
        return torch.stack([self._likelihood(batch, label) for label in self.labels], dim=-1)

    def _likelihood(self, batch: Sequence[Prompt], label: str) -> Tensor:
        named = [replace(prompt, query=replace(prompt.query, answers=(label,))) for prompt in batch]
        answers = [self.scorer.backbone.encode_answer(prompt) for prompt in named]
        if self.edit:
            return self._under_edit(self.edit, batch, answers)
        scores = self.scorer.score(batch, answers, self.insertion, self.config.insertion.when)
        return scores[:, 0].sum(-1) / torch.tensor([len(a) for a in answers], device=scores.device)

    def _under_edit(self, edit: TrainedEdit, batch: Sequence[Prompt], answers: Sequence[Tensor]) -> Tensor:
        """By whole forwards: an edit of every token leaves no prefix as it was."""
        found = said(self.backbone, batch, answers, *attaching(edit, self.backbone.model, self.backbone.site))
        parts = zip(found.by_answer(answers), answers, strict=True)
        return torch.stack([-torch.nn.functional.cross_entropy(part.logits, answer) for part, answer in parts])


def evaluate(
    backbone: Backbone, task: Task, vector: Found | None, config: Config, split: str = "eval"
) -> list[Prediction]:
    """Answer every query of a split (eval or validation) behind `method.shots` demonstrations from the support.

    With a vector inserted, as the nearest of classes, or by prompting alone.
    """
    check(task, config)
    score = metric(config.dataset.metric)
    queries = task.validation if split == "validation" else task.evaluation
    module = _module(backbone, task, vector, config)
    prompts = _prompts(backbone, task, queries, config, split)
    order = longest_first(prompts)
    parts = predict(module, [prompts[i] for i in order], config.trainer)
    texts = dict(zip(order, chain.from_iterable(parts), strict=True))
    return [_judge(prompt, texts[i], score) for i, prompt in enumerate(prompts)]


def _prompts(backbone: Backbone, task: Task, queries: Sequence[Example], config: Config, split: str) -> list[Prompt]:
    """Queries behind their demonstrations; without any, nothing is compared."""
    shots, choice = config.method.shots, config.demonstrations.choice
    features = demonstration_features(backbone, task, config, queries) if shots else {}
    sampler = DemonstrationSampler(task, config.seed, choice, features)
    template = learned_from(config).template if split == "validation" else config.dataset.template
    return [make_prompt(template, q, sampler.draw(q, shots, split)) for q in queries]


def accuracy(predictions: list[Prediction]) -> float:
    """Mean score, 0-1."""
    return sum(p.correct for p in predictions) / len(predictions)


def summary(predictions: list[Prediction], metric_name: str) -> dict[str, float]:
    """Accuracy with its 95% interval and n; with `choice` also the share of predictions that name a letter."""
    low, high = interval([p.correct for p in predictions])
    found = {"accuracy": accuracy(predictions), "accuracy_low": low, "accuracy_high": high, "n": len(predictions)}
    if metric_name == "choice":
        found["parse_rate"] = sum(letter_of(p.prediction) is not None for p in predictions) / len(predictions)
    return found


def _module(backbone: Backbone, task: Task, vector: Found | None, config: Config) -> Stage:
    if isinstance(vector, Classes):
        return Reader(backbone, vector, config)
    if config.dataset.metric != "likelihood":
        return Evaluation(backbone, vector, config)
    return Classification(backbone, vector, config, task.labels)


def check(task: Task, config: Config) -> None:
    """Raise `StvError` for a task that cannot be asked or scored under these settings, before a model is loaded."""
    check_shots(task, config.method.shots)
    if config.dataset.metric == "likelihood" and not task.labels:
        raise StvError(
            f"dataset.metric=likelihood needs a closed set of labels, and {task.name} has none; use exact_match."
        )
    others = [query.answers[0] for query in task.validation if not {*query.answers} & {*task.labels}]
    if config.dataset.metric == "likelihood" and others:
        raise StvError(
            f"dataset.validation is of what is learned from, whose answers are no labels of {task.name}, such as "
            f"{others[0]!r}; dataset.metric=likelihood chooses among these, so use exact_match or dataset.validation=0."
        )
    score = metric(config.dataset.metric)
    for query in (*task.evaluation, *task.validation):
        try:
            score("", query.answers)
        except StvError as error:
            raise StvError(f"Query {query.id} of {task.name} cannot be scored: {error}") from error


def _insertion(backbone: Backbone, vector: TaskVector | None) -> Insertion:
    """What a task vector writes, as one candidate `[1, 1, K, D]`; nothing without one."""
    if vector is None:
        return Insertion(torch.zeros(0, 2, dtype=torch.long), torch.zeros(1, 1, 0, backbone.heads.dim))
    vector.check(backbone.site(vector.site))
    return vector.edit.insertion(vector.locations, vector.vectors[None, None], site=vector.site)


def _judge(prompt: Prompt, text: str, score: Metric) -> Prediction:
    query = prompt.query
    demonstrations = [d.id for d in prompt.demonstrations]
    return Prediction(query.id, query.question, list(query.answers), text, score(text, query.answers), demonstrations)
