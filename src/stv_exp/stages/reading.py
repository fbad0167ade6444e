"""Methods that read the model and insert nothing: labelled activations of the support, then a label for each query."""

from __future__ import annotations

import random
from collections.abc import Sequence

from stv_exp.artefacts.readings import Classes, Readings
from stv_exp.config import Config, learned_from
from stv_exp.data.prompts import Prompt, make_prompt
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError
from stv_exp.methods.classifier import Classifier
from stv_exp.methods.guard import blamed
from stv_exp.methods.method import Method
from stv_exp.models.backbone import Backbone
from stv_exp.stages.scan import captured
from stv_exp.stages.trainer import Stage


def read(backbone: Backbone, task: Task, config: Config) -> Readings:
    """Activations of `scan.per_label` support queries of each label, each alone; raises `StvError` on NaN."""
    queries = labelled(task, config)
    template = learned_from(config).template
    prompts = [make_prompt(template, query) for query in queries]
    found = captured(backbone, task, prompts, config)
    return Readings(found, [q.answers[0] for q in queries], [q.id for q in queries], config.method.site)


def learned(readings: Readings, config: Config) -> Classes:
    """What the classifier of `config.method` keeps of the readings."""
    how = classifier(config)
    with blamed(how):
        return how.learn(readings)


def labelled(task: Task, config: Config) -> list[Example]:
    """At most `scan.per_label` support examples of each label, seeded; those with other answers are left out."""
    pick, found = random.Random(f"{config.seed}/labelled"), list[Example]()
    for label in task.labels:
        own = [example for example in task.support if example.answers[0] == label]
        found += pick.sample(own, min(config.scan.per_label, len(own)))
    return found


def check(task: Task, config: Config) -> None:
    """Raise `StvError` for a task without labels, or without two that have examples."""
    if not task.labels:
        raise StvError(
            f"method={config.method.name} answers with a label, and {task.name} has no closed set of them; "
            "choose a method that inserts a vector, or a task with labels."
        )
    others = sorted({example.answers[0] for example in task.support} - {*task.labels})
    if others and learned_from(config) != config.dataset:
        raise StvError(
            f"What is learned from has answers that are no labels of {task.name}, such as {others[0]!r}; "
            f"method={config.method.name} carries labels over, so choose a fit.task with the same ones."
        )
    if len({example.answers[0] for example in labelled(task, config)}) < 2:
        raise StvError(f"Fewer than two labels of {task.name} have support examples; raise dataset.support.")


def classifier(config: Config) -> Classifier:
    """The classifier of `config.method`; raises `StvError` where the method has none."""
    how = Method.of(config).how
    if not isinstance(how, Classifier):
        raise StvError(f"method.how={how.name} answers with no label; derive it from Classifier.")
    return how


class Reader(Stage):
    """Answers a batch of prompts with labels, each by one forward."""

    stage = "evaluation"

    def __init__(self, backbone: Backbone, classes: Classes, config: Config) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = classes
        self.how = classifier(config)

    def predict_step(self, batch: Sequence[Prompt], batch_idx: int) -> list[str]:
        found = self.backbone.capture(self.backbone.encode(batch), self.classes.site)
        at_places = found.movedim(0, -2)[self.classes.places.unbind(1)].movedim(0, 1)
        with blamed(self.how):
            chosen = self.how.label(self.classes, at_places)
        return [self.classes.labels[i] for i in chosen.tolist()]
