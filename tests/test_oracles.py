"""Searches do what the published code does, written out in `oracles/`: the same draws, losses, updates and choice."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import torch
from torch import Tensor

from stv_exp import TaskVector
from stv_exp.config import Config, ModelConfig, TemplateConfig
from stv_exp.data.prompts import Prompt, make_prompt
from stv_exp.data.task import Example, Task
from stv_exp.methods.how.bernoulli import Bernoulli
from stv_exp.models.backbone import Backbone
from stv_exp.models.loading import load_backbone
from stv_exp.stages.bank import build_bank
from stv_exp.stages.scan import make_pairs, scan
from stv_exp.stages.search import CandidateSearch, fit
from tests.conftest import with_method
from tests.families import FAMILIES
from tests.family_processors import WORDS
from tests.oracles import mtv

S, STEPS, DRAWS, ITEMS = 32, 5, 10, 6
PROJECTION = re.compile(r"model\.(text_model\.)?layers\.\d+\.self_attn\.o_proj")
TEXT = TemplateConfig("", "Q: {question}\nA: {answer}\n", "Q: {question}\nA:", " {answer}")
Subject = tuple[Backbone, Task, Config]


@dataclass
class Searched:
    """What our search drew, was told and ended with; masks `[N, K]` are true where the mean is inserted."""

    module: CandidateSearch
    probabilities: list[Tensor] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)

    @property
    def grid(self) -> tuple[int, int]:
        heads = self.module.scorer.backbone.heads
        return heads.n_layers, heads.n_heads


class Published:
    """The oracle on one of our models: it is handed token ids, projections and means alone."""

    def __init__(self, subject: Subject) -> None:
        self.backbone, self.task, self.config = subject
        network = self.backbone.model
        self.projections = [m for name, m in network.named_modules() if PROJECTION.fullmatch(name)]
        heads = network.config.get_text_config(decoder=True).num_attention_heads
        prompts = [self.encode(prompt) for prompt, _ in make_pairs(self.task, self.config)]
        self.means = mtv.mean_activations(network, self.projections, heads, prompts)
        self.forward = partial(mtv.forward, network, self.projections, self.means)

    def encode(self, prompt: Prompt) -> dict[str, Tensor]:
        return {key: value for key, value in self.backbone.encode([prompt]).items() if key != "token_type_ids"}

    def question(self, query: Example) -> mtv.Question:
        prompt = make_prompt(self.config.dataset.template, query)
        return self.encode(prompt), self.backbone.encode_answer(prompt)

    def loss(self, mask: Tensor, question: mtv.Question) -> Tensor:
        """Cross entropy of the answer's first token."""
        return torch.nn.functional.cross_entropy(self.forward(mask, question)[:1], question[1][:1])

    def answer(self, mask: Tensor, query: Example, n: int) -> list[int]:
        """Greedy tokens, each by a forward of all before it."""
        prompt, tokens = self.question(query)[0], torch.zeros(1, dtype=torch.long)
        for _ in range(n):
            tokens = torch.cat([tokens[:-1], self.forward(mask, (prompt, tokens))[-1:].argmax(-1), tokens[-1:]])
        return tokens[:-1].tolist()


@pytest.fixture(params=["idefics2", "llama"])
def subject(request, task, config, tmp_path) -> Subject:
    """A model, a task and MTV's settings: one-word answers to pictures, and two-word answers to words.

    The Llama's projections have biases, and its heads are wider than hidden / heads. Both have wide weights: where
    masks hardly matter, rounding decides what the loop learns.
    """
    FAMILIES[request.param](tmp_path / request.param)
    backbone = load_backbone(ModelConfig(str(tmp_path / request.param)))
    policy = replace(config.policy, queries=1, samples=S, reward="first", selection_draws=DRAWS, selection_items=ITEMS)
    paid = -(-DRAWS * ITEMS // S)  # steps that the selection takes
    config = with_method(config, where="all", what="mean", how="bernoulli")
    config = replace(config, policy=replace(policy, steps=STEPS + paid))
    if request.param == "idefics2":
        return backbone, task, config
    return backbone, words(), replace(config, dataset=replace(config.dataset, template=TEXT))


def words() -> Task:
    """Questions of one to three words with answers of two."""
    pick = random.Random(0)
    known = [word for word in WORDS.split() if word.islower()]
    drawn = [(pick.sample(known, 1 + i % 3), pick.sample(known, 2)) for i in range(32)]
    examples = [Example(f"w{i}", (), " ".join(q), (" ".join(a),)) for i, (q, a) in enumerate(drawn)]
    return Task("words", tuple(examples[:24]), tuple(examples[24:]))


@pytest.fixture
def searched(subject, monkeypatch) -> Searched:
    """Our search, its draws and answers written down, up to where it decides."""
    backbone, task, config = subject
    bank = build_bank(scan(backbone, task, config), config)
    found = Searched(CandidateSearch(backbone, task, bank, Bernoulli(config), config))
    drawn, rewards = Bernoulli._drawn, CandidateSearch.rewards

    def keep_drawn(p: Tensor, *arguments: object) -> Tensor:
        found.probabilities.append(p)
        found.masks.append(drawn(p, *arguments)[0] == 0)
        return 1 - found.masks[-1][None].long()

    def keep_rewards(module: CandidateSearch, queries: Sequence[Example], choices: Tensor) -> Tensor:
        result = rewards(module, queries, choices)
        found.losses.append(-result[0])
        return result

    monkeypatch.setattr(Bernoulli, "_drawn", staticmethod(keep_drawn))
    monkeypatch.setattr(CandidateSearch, "rewards", keep_rewards)
    found.module.prepare()
    fit(found.module)
    return found


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def steps_of(searched: Searched, published: Published) -> list[tuple[mtv.Question, Tensor]]:
    """Our queries and masks; every other draw is of the uninformed search, for the curves alone."""
    queries = [published.question(query) for (query,) in searched.module.queries()]
    return list(zip(queries, (m.view(-1, *searched.grid) for m in searched.masks[::2]), strict=True))


def test_mtvs_means_losses_and_updates_are_the_published_loops(subject, searched):
    published = Published(subject)
    close(searched.module.bank.centroids.view_as(published.means), published.means)
    logits, history = mtv.search(published.loss, searched.grid, steps_of(searched, published))
    assert len(history) == len(searched.losses) == STEPS
    for (p, losses), ours_p, ours in zip(history, searched.probabilities[::2], searched.losses, strict=True):
        close(ours_p.view_as(p), p)
        close(ours[:S], losses)
    close(searched.module.logits.detach().view_as(logits), logits)


@pytest.mark.parametrize("threshold", [0.0, 0.27])
def test_mtvs_mask_is_the_best_of_those_that_the_published_code_draws(subject, searched, threshold):
    how, module = searched.module.how, searched.module
    how.config = replace(how.config, policy=replace(how.config.policy, threshold=threshold))
    choices = how.decide(module)
    published = Published(subject)
    logits = module.logits.detach().view(searched.grid)
    allowed, masks = mtv.drawable(logits, threshold), searched.masks[-1].view(-1, *searched.grid)
    close(searched.probabilities[-1].view_as(allowed), allowed)
    assert len(masks) == DRAWS and len(masks.unique(dim=0)) == DRAWS
    assert (0 < (allowed > 0).sum() < allowed.numel()) == bool(threshold) and not masks[:, allowed == 0].any()
    drawn = random.Random(module.config.seed).sample(module.support, ITEMS)
    best = mtv.best(published.loss, masks, [published.question(item) for item in drawn])
    assert torch.equal(choices.view(searched.grid) == 0, best)


def test_mtvs_final_masks_are_drawn_without_the_loops_clamp(searched):
    """As published: of 1,024 heads that the loop gave up, a clamp would insert one in every mask."""
    module = searched.module
    module.logits.data = torch.linspace(-20, 20, len(module.logits))
    module.how.decide(module)
    close(searched.probabilities[-1], mtv.drawable(module.logits.detach(), 0.0))


def test_mtvs_vector_answers_as_with_the_mask_at_every_step(subject, searched):
    published, n = Published(subject), 4
    mask = searched.masks[0][0]
    vector = TaskVector(searched.module.bank.locations[mask], searched.module.bank.centroids[mask, 0])
    for query in published.task.evaluation[:3]:
        prompt = published.backbone.encode([make_prompt(published.config.dataset.template, query)])
        with vector.inserted(published.backbone.model):
            ids = published.backbone.model.generate(**prompt, max_new_tokens=n, do_sample=False)
        ours = ids[0, prompt["input_ids"].shape[1] :].tolist()
        assert ours == published.answer(mask.view(searched.grid), query, n)[: len(ours)]
