"""Trained rivals do what their published code does, written out in `oracles/`: starts, losses and updates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from PIL.Image import Image
from torch import Tensor

from stv_exp.config import Config, ModelConfig, TemplateConfig, TrainConfig
from stv_exp.data.prompts import Prompt, make_prompt
from stv_exp.data.task import Task
from stv_exp.methods.method import Method
from stv_exp.models.backbone import Backbone
from stv_exp.models.loading import load_backbone
from stv_exp.stages.teacher import contexts
from stv_exp.stages.train import Training, train
from tests.conftest import with_method
from tests.families import FAMILIES
from tests.oracles import hificl, i2cl, icv, live, lora, mimic
from tests.oracles.training import Question, answer_logits, answered, ce, optimise
from tests.test_oracles import words

TEXT = TemplateConfig("", "Q: {question}\nA: {answer}\n", "Q: {question}\nA:", " {answer}")
STEPS, WARMUP = 4, 1


class Subject:
    """A model, a task of `STEPS` support examples, and training settings: a query a step."""

    def __init__(self, backbone: Backbone, task: Task, config: Config) -> None:
        self.backbone, self.config = backbone, config
        self.task = replace(task, support=task.support[:STEPS])
        self.network = backbone.model
        layers = next(m.layers for m in self.network.modules() if hasattr(m, "layers") and hasattr(m, "embed_tokens"))
        self.layers = layers
        self.attentions = [layer.self_attn for layer in layers]
        self.mlps = [layer.mlp for layer in layers]

    def with_edit(self, name: str, **changes: Any) -> Config:
        train = TrainConfig(epochs=1, batch=1, shots=2, warmup=WARMUP / STEPS, noise=0.0, weight_decay=0.01)
        config = with_method(self.config, where="none", what="none", how="none", edit=name, site="mlp")
        return replace(config, train=replace(train, **changes))

    def question(self, prompt: Prompt, ended: bool = True) -> Question:
        inputs = {k: v for k, v in self.backbone.encode([prompt]).items() if k != "token_type_ids"}
        return inputs, self.backbone.encode_answer(prompt, ended)

    def text(self, text: str, pictures: Sequence[Image] = ()) -> dict[str, Tensor]:
        """Model inputs of a text behind its pictures."""
        images = {"images": [list(pictures)]} if pictures else {}
        inputs = self.backbone.processor(text=["<image>" * len(pictures) + text], return_tensors="pt", **images)
        return {k: v for k, v in inputs.items() if k != "token_type_ids"}

    def alone(self, config: Config, module: Training) -> list[Question]:
        """The steps' queries."""
        template = config.dataset.template
        return [self.question(make_prompt(template, query)) for (query,) in module.batches()]

    def behind(self, config: Config, module: Training) -> list[Question]:
        """The same behind the teacher's demonstrations."""
        found = {prompt.query.id: prompt for prompt in contexts(self.backbone, self.task, config)}
        return [self.question(found[query.id]) for (query,) in module.batches()]


@pytest.fixture(params=["idefics2", "llama"])
def subject(request, task, config, tmp_path) -> Subject:
    """Wide weights, grouped heads, biases; answers of one token about pictures, and of two words about words."""
    FAMILIES[request.param](tmp_path / request.param)
    backbone = load_backbone(ModelConfig(str(tmp_path / request.param)))
    if request.param == "idefics2":
        return Subject(backbone, task, config)
    return Subject(backbone, words(), replace(config, dataset=replace(config.dataset, template=TEXT)))


def started(subject: Subject, config: Config) -> tuple[Training, dict[str, Tensor]]:
    """A training before its first step, and copies of its parameters for the oracle to train."""
    module = Training(subject.backbone, subject.task, Method.of(config).edit, config)
    return module, {name: value.detach().clone().requires_grad_() for name, value in module.weights.items()}


def groups(config: Config, p: dict[str, Tensor], scales: tuple[str, ...] = (), undecayed: tuple[str, ...] = ()) -> Any:
    train = config.train
    return [
        {
            "params": [value],
            "lr": train.scale_lr if name in scales else train.lr,
            "weight_decay": 0.0 if name in undecayed else train.weight_decay,
        }
        for name, value in p.items()
    ]


def drawn(values: Tensor, std: float) -> bool:
    """Whether they may come from N(0, std^2): mean and deviation within four standard errors."""
    error = 4 * std / values.numel() ** 0.5
    return values.mean().abs() <= error and (values.std() - std).abs() <= error


def same(subject: Subject, config: Config, losses: list[float], p: dict[str, Tensor]) -> None:
    """Ours ends with the oracle's losses and parameters."""
    ours = train(subject.backbone, subject.task, config)
    close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)
    close(torch.tensor(ours.history["loss"]), torch.tensor(losses))
    for name, value in p.items():
        close(ours.parameters[name], value.detach())


@pytest.mark.parametrize("tokens", ["all", "first"])
def test_i2cls_vectors_losses_and_updates_are_the_published_ones(subject, tokens):
    config = subject.with_edit("i2cl", lr=0.01, clip=0.0, tokens=tokens)
    module, p = started(subject, config)
    blocks = list(zip(subject.attentions, subject.mlps, strict=True))
    template = config.dataset.template
    demonstrations = [subject.question(make_prompt(template, e)) for e in subject.task.support]
    vectors = i2cl.context_vectors(subject.network, blocks, demonstrations)
    torch.testing.assert_close(module.constants["vectors"], vectors, atol=1e-5, rtol=1e-5)
    assert torch.equal(p["scales"].detach(), torch.tensor(i2cl.START).expand_as(p["scales"]))
    queries = subject.alone(config, module)
    loss = lambda i: i2cl.loss(  # noqa: E731
        subject.network, blocks, vectors, p["scales"], question=queries[i], first=tokens == "first"
    )
    same(subject, config, optimise(loss, groups(config, p), STEPS, WARMUP, 0.0), p)


def test_lives_losses_and_updates_are_the_published_ones(subject):
    config = subject.with_edit("live", lr=1e-3, scale_lr=1e-2)
    module, p = started(subject, config)
    assert drawn(p["vectors"], live.STD) and torch.equal(p["scales"], torch.full_like(p["scales"], live.SCALE))
    queries = subject.alone(config, module)
    teachers = [live.told(subject.network, context).detach() for context in subject.behind(config, module)]
    loss = lambda i: live.loss(subject.network, subject.mlps, p["vectors"], p["scales"], queries[i], teachers[i])[0]  # noqa: E731
    same(subject, config, optimise(loss, groups(config, p, ("scales",)), STEPS, WARMUP, 1.0), p)


@pytest.mark.parametrize("unseen", [False, True])
def test_mimics_losses_and_updates_are_the_published_ones(subject, unseen):
    """Masks kept, or, as in the published code, keys that a token does not see counted too."""
    config = subject.with_edit("mimic", unseen=unseen)
    module, p = started(subject, config)
    assert all(drawn(value, mimic.START[name]) for name, value in p.items())
    queries = subject.alone(config, module)
    with torch.no_grad():
        teachers = [mimic.outputs(subject.network, subject.mlps, c)[1] for c in subject.behind(config, module)]
    parts = (subject.network, subject.attentions, subject.mlps, p)
    loss = lambda i: mimic.loss(*parts, queries[i], teachers[i], not unseen)[0]  # noqa: E731
    same(subject, config, optimise(loss, groups(config, p, (), ("bias",)), STEPS, WARMUP, 1.0), p)


@pytest.mark.parametrize("alone", [True, False])
def test_icvs_directions_and_logits_are_the_published_ones(subject, alone):
    """Question and answer are texts of their own, or, as everywhere else, the answer stands behind its query."""
    config = subject.with_edit("icv", shots=3, alone=alone)
    config = replace(config, insertion=replace(config.insertion, weight=0.1))
    edit = train(subject.backbone, subject.task, config)
    drawn = random.Random(f"{config.seed}/moved").sample(subject.task.support, 3)
    demonstrations = [subject.question(make_prompt(config.dataset.template, example), ended=False) for example in drawn]
    behind = [(demonstration[0], answered(demonstration)) for demonstration in demonstrations]
    texts = [(subject.text(f" {e.question}", e.pictures), subject.text(f" {e.answers[0]}", e.pictures)) for e in drawn]
    vectors = icv.directions(subject.network, subject.layers, texts if alone else behind)
    torch.testing.assert_close(edit.parameters["vectors"], vectors, atol=1e-5, rtol=1e-5)
    with edit.inserted(subject.network):
        ours = answer_logits(subject.network, demonstrations[0]).detach()
    theirs = icv.logits(subject.network, subject.mlps, vectors, 0.1, demonstrations[0])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours, answer_logits(subject.network, demonstrations[0]), atol=1e-3), "it does something"


def test_the_masks_are_a_difference_that_shows(subject):
    """Keys that a token does not see count in the published sums."""
    config = subject.with_edit("mimic")
    module, p = started(subject, config)
    query = subject.alone(config, module)[0]
    large = {name: value + 1 for name, value in p.items()}
    teacher = mimic.outputs(subject.network, subject.mlps, query)[1].detach()
    published, ours = (
        mimic.loss(subject.network, subject.attentions, subject.mlps, large, query, teacher, masked)[2]
        for masked in (False, True)
    )
    assert (published - ours).abs() > 1e-3


def test_the_tokens_that_losses_are_of_are_differences_that_show(subject):
    """Of the question too; LIVE's KL at the answer's own tokens, or softened; MimIC's error at every token."""
    config = subject.with_edit("live")
    module, p = started(subject, config)
    (query, *_), (behind, *_) = subject.alone(config, module), subject.behind(config, module)
    with torch.no_grad():
        parts = (subject.network, subject.mlps, p["vectors"] * 100, p["scales"], query)
        ours = live.loss(*parts, live.told(subject.network, behind))
        published = live.loss(*parts, live.told(subject.network, behind, ahead=False), ahead=False, whole=True)
        soft = live.loss(*parts, live.told(subject.network, behind), temperature=2.0, epsilon=1e-6)
        assert all((a - b).abs() > 1e-4 for a, b in zip(ours[1:], published[1:], strict=True))
        assert (ours[1] - soft[1]).abs() > 1e-5
        edit, n = started(subject, subject.with_edit("mimic"))[1], len(answered(query)["input_ids"][0]) - 1
        near, far = (mimic.outputs(subject.network, subject.mlps, behind, k)[1] for k in (0, n))
        shifted = (subject.network, subject.attentions, subject.mlps, {k: v + 1 for k, v in edit.items()}, query)
        assert (mimic.loss(*shifted, near)[1] - mimic.loss(*shifted, far, whole=True)[1]).abs() > 1e-4
        assert (ce(subject.network, query) - ce(subject.network, query, whole=True)).abs() > 1e-4


@pytest.mark.parametrize(("rank", "unseen"), [(0, False), (3, False), (3, True)])
def test_hificls_losses_and_updates_are_the_published_ones(subject, rank, unseen):
    config = subject.with_edit("hificl", rank=rank, virtual=5, unseen=unseen)
    module, p = started(subject, config)
    assert all(drawn(value, hificl.START[name]) for name, value in p.items())
    queries = subject.alone(config, module)
    loss = lambda i: hificl.loss(subject.network, subject.attentions, p, queries[i], not unseen)  # noqa: E731
    same(subject, config, optimise(loss, groups(config, p), STEPS, WARMUP, 1.0), p)


def test_loras_start_losses_and_updates_are_those_of_updated_weights(subject):
    config = subject.with_edit("lora", rank=3)
    module, p = started(subject, config)
    assert lora.starts_alike(p)
    queries = subject.alone(config, module)
    loss = lambda i: lora.loss(subject.network, subject.attentions, p, queries[i])  # noqa: E731
    same(subject, config, optimise(loss, groups(config, p), STEPS, WARMUP, 1.0), p)
