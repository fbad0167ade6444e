"""Tiny real models and tasks that the tests share."""

from __future__ import annotations

import os
from dataclasses import replace

# No test may reach a hub or a tracker's service; the hub's client reads this when it is imported.
os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from stv_exp.config import Config, DatasetConfig, MethodConfig, ModelConfig, PolicyConfig, ScanConfig
from stv_exp.data.shapes import load
from stv_exp.data.task import Task
from stv_exp.models.backbone import Backbone
from stv_exp.models.loading import load_backbone
from stv_exp.tracker_config import TrackerConfig


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture
def config(tmp_path) -> Config:
    """Small settings of every stage on the tiny Idefics2."""
    return Config(
        model=ModelConfig(name="tiny"),
        dataset=DatasetConfig(
            name="shapes",
            loader="stv_exp.data.shapes",
            task="position-shared-0",
            support=24,
            eval=12,
            max_new_tokens=2,
        ),
        method=MethodConfig(name="stv", where="sensitivity", what="clusters", how="reinforce", k=5, m=3),
        scan=ScanConfig(pairs=12, shots=2),
        policy=PolicyConfig(steps=6, queries=2, samples=4, selection_draws=3, selection_items=4),
        tracker=TrackerConfig(name="none"),
        outputs=str(tmp_path / "outputs"),
    )


@pytest.fixture
def task(config: Config) -> Task:
    return load(config.dataset)


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """A random Idefics2 with grouped-query heads."""
    return load_backbone(ModelConfig(name="tiny"))


def llama() -> PreTrainedModel:
    """Grouped-query heads, head_dim other than hidden / heads, and a bias in the output projection."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "vocab_size": 99}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 20, "attention_bias": True}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, pad_token_id=0))
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.o_proj.bias)
    return model.eval()


def qwen2() -> PreTrainedModel:
    """Biased queries, keys and values; tied embeddings."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 99}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, pad_token_id=0)).eval()


def with_method(config: Config, **changes: object) -> Config:
    """The same settings with another method."""
    return replace(config, method=replace(config.method, **changes))


def pytest_terminal_summary(terminalreporter) -> None:
    """Say of each kind of fault how many runs have survived it, of those tried (`tests/test_faults.py`)."""
    found: dict[str, list[int]] = {}
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == "survived" and report.when == "call":
                kind, survived, tried = value
                before = found.get(kind, [0, 0])
                found[kind] = [before[0] + survived, before[1] + tried]
    if found:
        terminalreporter.section("faults: survived / tried")
        for kind, (survived, tried) in found.items():
            terminalreporter.write_line(f"{kind}: {survived} / {tried}")
        survived, tried = (sum(counts) for counts in zip(*found.values(), strict=True))
        terminalreporter.write_line(f"{'all survived' if survived == tried else 'LOST'}: {survived} / {tried}")
