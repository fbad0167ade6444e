"""Methods that are found, not trained, do what was published, written out in `oracles/`: to 1e-5, on the same draws."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from stv_exp import TaskVector
from stv_exp.config import Config, ModelConfig
from stv_exp.data.prompts import Prompt, make_prompt
from stv_exp.data.task import Example, Task
from stv_exp.library import build_bank
from stv_exp.methods.how.best_location import BestLocation
from stv_exp.methods.where.indirect_effect import shuffled
from stv_exp.models.backbone import Backbone
from stv_exp.models.loading import load_backbone
from stv_exp.stages.effects import Asked, measure
from stv_exp.stages.reading import Reader, labelled, learned, read
from stv_exp.stages.scan import make_pairs, scan
from stv_exp.stages.search import CandidateSearch, choose
from tests.conftest import with_method
from tests.families import FAMILIES
from tests.oracles import fv, mtv, savs, tv
from tests.test_oracles import PROJECTION, TEXT, close, words

LAYER = re.compile(r"model\.(text_model\.)?layers\.\d+")


@dataclass
class Subject:
    """A model and a task, as ours and as an oracle sees them."""

    backbone: Backbone
    task: Task
    config: Config

    def modules(self, path: re.Pattern[str]) -> list[nn.Module]:
        return [module for name, module in self.backbone.model.named_modules() if path.fullmatch(name)]

    def encode(self, prompt: Prompt) -> dict[str, Tensor]:
        return {key: value for key, value in self.backbone.encode([prompt]).items() if key != "token_type_ids"}

    def question(self, prompt: Prompt) -> fv.Question:
        return self.encode(prompt), self.backbone.encode_answer(prompt)

    def alone(self, query: Example) -> Prompt:
        return make_prompt(self.config.dataset.template, query)

    def items(self, config: Config) -> list[fv.Question]:
        """The support queries that a layer is chosen on."""
        n = BestLocation(config).final_queries(len(self.task.support))
        return [self.question(self.alone(q)) for q in random.Random(config.seed).sample(self.task.support, n)]


@pytest.fixture(scope="module", params=["idefics2", "llama"])
def backbone(request, tmp_path_factory) -> Backbone:
    folder = tmp_path_factory.mktemp("models") / request.param
    FAMILIES[request.param](folder)
    backbone = load_backbone(ModelConfig(str(folder)))
    with torch.no_grad():
        for name, weight in backbone.model.named_parameters():
            if name.endswith("o_proj.weight"):
                weight.mul_(8)  # so that heads change answers
    return backbone


@pytest.fixture
def subject(backbone, task, config) -> Subject:
    """One-word answers to pictures, and two-word answers to words; the Llama's projections have biases."""
    config = replace(config, scan=replace(config.scan, shots=3, effect_prompts=3))
    config = replace(config, insertion=replace(config.insertion, when="prompt"))
    if backbone.sees_images:
        return Subject(backbone, task, config)
    return Subject(backbone, words(), replace(config, dataset=replace(config.dataset, template=TEXT)))


def rewards_alone(subject: Subject, config: Config, monkeypatch) -> tuple[list[Tensor], TaskVector, object]:
    """Our scores of each location alone, and what is chosen by them."""
    found: list[Tensor] = []
    rewards = CandidateSearch.rewards
    with monkeypatch.context() as patch:
        patch.setattr(CandidateSearch, "rewards", lambda *given: found.append(rewards(*given)) or found[-1])
        bank = build_bank(scan(subject.backbone, subject.task, config), config, subject.backbone, subject.task)
        chosen = choose(subject.backbone, subject.task, bank, config)
    vector = TaskVector(chosen.locations, chosen.vectors, config.insertion.mode, site=bank.site, when="prompt")
    return torch.cat(found).mean(0), vector, bank


def test_function_vectors_heads_vector_and_layer_are_the_published_ones(subject, monkeypatch):
    config = with_method(subject.config, where="indirect_effect", what="function_vector", how="best_location", k=4)
    config = replace(config, insertion=replace(config.insertion, mode="add"))
    network, projections, layers = subject.backbone.model, subject.modules(PROJECTION), subject.modules(LAYER)
    heads = subject.backbone.heads
    shown = [subject.encode(prompt) for prompt, _ in make_pairs(subject.task, config)]
    means = mtv.mean_activations(network, projections, heads.n_heads, shown)
    pick = random.Random(f"{config.seed}/shuffled")
    asked = [shuffled(p, pick) for p in Asked(subject.backbone, subject.task, config).prompts(3)]
    effects = fv.indirect_effects(network, projections, means, [subject.question(p) for p in asked])
    ours = measure(subject.backbone, subject.task, scan(subject.backbone, subject.task, config), config).scores
    close(ours, effects)
    assert effects.abs().max() > 1e-4, "there is something to compare"

    vector, top = fv.function_vector(projections, means, effects, 4)
    rewards, found, bank = rewards_alone(subject, config, monkeypatch)
    assert bank.site == "residual" and len(bank.locations) == len(layers)
    for candidate in bank.centroids[:, 0]:
        close(candidate, vector)
    expected = fv.likelihoods(network, layers, lambda _, state: state + vector, subject.items(config))
    close(rewards, expected)
    assert found.locations.tolist() == [[int(expected.argmax())]] and found.mode == "add"
    close(found.vectors[0], vector)
    biases = [projections[layer].bias for layer, _ in top]
    if biases[0] is not None:
        published, _ = fv.function_vector(projections, means, effects, 4, bias=True)
        close(published - vector, torch.stack(biases).sum(0))


def test_task_vectors_states_and_layer_are_the_published_ones(subject, monkeypatch):
    config = with_method(subject.config, where="all", what="mean", how="best_location", site="residual")
    network, layers = subject.backbone.model, subject.modules(LAYER)
    states = tv.states(network, layers, [subject.encode(prompt) for prompt, _ in make_pairs(subject.task, config)])
    rewards, found, bank = rewards_alone(subject, config, monkeypatch)
    close(bank.centroids[:, 0], states)
    layer, scores = tv.best_layer(network, layers, states, subject.items(config))
    close(rewards, scores)
    assert found.locations.tolist() == [[layer]]
    close(found.vectors[0], states[layer])


def test_a_task_vector_answers_as_the_published_accuracy_by_layer_counts(subject):
    config = with_method(subject.config, where="all", what="mean", how="best_location", site="residual")
    backbone = subject.backbone
    bank = build_bank(scan(backbone, subject.task, config), config)
    questions = subject.items(config)
    _, scores = tv.best_layer(backbone.model, subject.modules(LAYER), bank.centroids[:, 0], questions, by="accuracy")
    for at, score in enumerate(scores):
        vector = TaskVector(bank.locations[[at]], bank.centroids[at], site="residual", when="prompt")
        with vector.inserted(backbone.model):
            ids = [backbone.model.generate(**p, max_new_tokens=1, do_sample=False)[0, -1] for p, _ in questions]
        assert sum(i == answer[0] for i, (_, answer) in zip(ids, questions, strict=True)) / len(ids) == score


def labels_of(subject: Subject) -> Subject:
    """The same with one of three labels as each answer, where the task has no labels."""
    if subject.task.labels:
        return subject
    names = ("cat", "dog", "bird")
    given = [
        tuple(replace(e, answers=(names[i % 3],)) for i, e in enumerate(s))
        for s in (subject.task.support, subject.task.evaluation)
    ]
    return replace(subject, task=Task("labels", *given, names))


def test_savs_heads_and_votes_are_the_published_ones(subject):
    subject = labels_of(subject)
    config = with_method(subject.config, name="savs", where="none", what="none", how="class_means", k=5)
    config = replace(config, scan=replace(config.scan, per_label=6))
    network, projections, heads = subject.backbone.model, subject.modules(PROJECTION), subject.backbone.heads

    def activations(query: Example) -> Tensor:
        return savs.heads(network, projections, heads.n_heads, subject.encode(subject.alone(query)))

    examples = [(activations(query), query.answers[0]) for query in labelled(subject.task, config)]
    means, top = savs.encode(examples, 5)
    classes = learned(read(subject.backbone, subject.task, config), config)
    assert [int(place[0]) * heads.n_heads + int(place[1]) for place in classes.places] == top
    for c, label in enumerate(classes.labels):
        close(classes.means[:, c], means[label][top])
    prompts = [subject.alone(query) for query in subject.task.evaluation]
    ours = Reader(subject.backbone, classes, config).predict_step(prompts, 0)
    assert ours == [savs.classify(activations(p.query), means, top) for p in prompts]
    assert len({*ours}) > 1
    counts = savs.encode(examples, 5, stable=False)[1]
    assert len(counts) == 5, "published, of equal heads others may be taken"
