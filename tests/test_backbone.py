"""The backbone's operations do not depend on how prompts are batched."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from stv_exp import TaskVector
from stv_exp.config import ModelConfig
from stv_exp.data.prompts import make_prompt
from stv_exp.errors import StvError
from stv_exp.models.backbone import Backbone
from stv_exp.models.loading import load_backbone
from stv_exp.models.sources import model_folder


@pytest.fixture
def prompts(task, config):
    """Prompts of 0 to 3 demonstrations: several images each, different lengths."""
    return [make_prompt(config.dataset.template, task.support[9], task.support[:s]) for s in (3, 0, 2)]


@pytest.fixture
def vector(backbone):
    heads = backbone.heads
    pick = torch.Generator().manual_seed(0)
    return TaskVector(heads.all_locations()[::3], torch.randn(6, heads.dim, generator=pick))


def test_capture_of_a_batch_equals_capture_of_each(backbone, prompts):
    together = backbone.capture(backbone.encode(prompts))
    assert together.shape == (3, 2, 8, 8)
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(backbone.capture(backbone.encode([prompt]))[0], together[row], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("inserted", [False, True])
def test_generation_of_a_batch_equals_generation_of_each(backbone, prompts, vector, inserted):
    v = vector if inserted else None
    together = backbone.generate(backbone.encode(prompts), 3, v)
    assert together == [backbone.generate(backbone.encode([p]), 3, v)[0] for p in prompts]


def test_forwards_and_tokens_are_counted(backbone, prompts):
    forwards, tokens = backbone.forwards, backbone.tokens
    batch = backbone.encode(prompts)
    backbone.capture(batch)
    assert backbone.forwards - forwards == 1
    assert backbone.tokens - tokens == batch["input_ids"].numel()


def test_rows_that_have_ended_cost_no_more_tokens(backbone, prompts, monkeypatch):
    """Until the longest one of the batch has ended; a row's last token is never fed."""
    new = torch.tensor([[5, 6, 7, 8], [5, 2, 0, 0], [2, 0, 0, 0]])  # 2 ends an answer
    batch = backbone.encode(prompts)
    monkeypatch.setattr(backbone.model.generation_config, "eos_token_id", [2])
    monkeypatch.setattr(backbone.model, "generate", lambda **inputs: torch.cat([inputs["input_ids"], new], 1))
    before = backbone.token_forwards
    backbone.generate(batch, 4)
    assert backbone.token_forwards - before == -(2 + 3), "of what was fed, as this generation has fed nothing"


@pytest.mark.parametrize("name", ["./no/such/folder", "/nowhere", "a/b/c"])
def test_a_missing_checkpoint_folder_is_refused(name):
    with pytest.raises(StvError, match="does not exist"):
        load_backbone(ModelConfig(name=name))


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(StvError, match=r"without config\.json"):
        load_backbone(ModelConfig(name=str(tmp_path)))


def test_a_broken_checkpoint_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StvError, match="cannot be loaded"):
        load_backbone(ModelConfig(name=str(tmp_path)))


def test_greedy_is_the_models_own_argmax_whatever_its_checkpoint_says(task, config):
    """A penalty, sampling or no cache in its generation config would change answers, or when a vector acts."""
    folder = model_folder("tiny")
    prompts = [make_prompt(config.dataset.template, q) for q in task.support[:6]]
    heads = TaskVector(torch.tensor([[0, 1], [1, 3]]), torch.randn(2, 8), when="prompt")
    found = []
    for defaults in ({}, {"repetition_penalty": 5.0, "use_cache": False, "do_sample": True, "temperature": 3.0}):
        model = AutoModelForImageTextToText.from_pretrained(folder)
        for name, value in defaults.items():
            setattr(model.generation_config, name, value)
        backbone = Backbone(model, AutoProcessor.from_pretrained(folder), "tiny")
        assert backbone.model.generation_config.eos_token_id is not None
        found.append([backbone.generate(backbone.encode(prompts), 5, vector) for vector in (None, heads)])
    assert found[0] == found[1]
