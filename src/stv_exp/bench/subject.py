"""What is measured: a randomly initialised model of a given size, and prompts of pictures and words for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
)

from stv_exp.cli import configure
from stv_exp.config import Config, DatasetConfig, TemplateConfig
from stv_exp.data.prompts import Prompt, make_prompt
from stv_exp.data.task import Example, Task
from stv_exp.models.backbone import Backbone
from stv_exp.models.processors import without_video
from stv_exp.testbed.model import build_processor, build_tokenizer

Sizes = dict[str, Any]
MROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
WORDS = [f"w{i}" for i in range(64)]
QUESTION_WORDS = 17  # behind 66 image tokens: prompts of 83 tokens
QWEN_SPECIAL = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


@dataclass(frozen=True)
class Subject:
    """A model, a task for it and the settings of a search at the paper's S=32."""

    backbone: Backbone
    task: Task
    config: Config

    @property
    def n_parameters(self) -> int:
        """Parameters of the whole model."""
        return sum(p.numel() for p in self.backbone.model.parameters())

    def prompts(self, n: int, shots: int = 0) -> list[Prompt]:
        """The first `n` queries behind `shots` demonstrations."""
        support = self.task.support
        demonstrations = [support[n + i * shots : n + (i + 1) * shots] for i in range(n)]
        template = self.config.dataset.template
        return [make_prompt(template, q, d) for q, d in zip(support, demonstrations, strict=False)]


def make_subject(size: str, device: str, dtype: str) -> Subject:
    """Build one of `SIZES` on a device."""
    torch.manual_seed(0)
    build, pixels = SIZES[size]
    with torch.device(device):
        model, processor = build()
    backbone = Backbone(model.to(getattr(torch, dtype)), processor, size)
    template = TemplateConfig(demonstration="<image>{question} {answer}\n", query="<image>{question}")
    dataset = DatasetConfig("pictures", "", "random", template=template)
    config = configure("method=stv", f"method.k={round(0.3 * len(backbone.heads))}")
    return Subject(backbone, _task(pixels), replace(config, dataset=dataset))


def _task(pixels: int, n: int = 160) -> Task:
    pick, noise = random.Random(0), np.random.default_rng(0)
    pictures = [noise.integers(0, 255, (pixels, pixels, 3), dtype=np.uint8) for _ in range(8)]
    examples = [
        Example(
            f"q{i}",
            (partial(Image.fromarray, pictures[i % 8]),),
            " ".join(pick.choices(WORDS, k=QUESTION_WORDS)),
            (pick.choice(WORDS),),
        )
        for i in range(n + 1)
    ]
    return Task("pictures/random", tuple(examples[:n]), (examples[n],))


def _idefics2(text: Sizes, vision: Sizes) -> tuple[PreTrainedModel, Any]:
    processor = build_processor(WORDS, vision["image_size"], image_tokens=64)
    hidden = text["hidden_size"]
    perceiver = {"hidden_size": hidden, "resampler_n_latents": 64, "resampler_head_dim": 96}
    config = Idefics2Config(
        image_token_id=processor.image_token_id,
        tie_word_embeddings=False,
        text_config={"model_type": "mistral", "sliding_window": None, "pad_token_id": 0, **text},
        vision_config=vision,
        perceiver_config={**perceiver, **text.pop("perceiver")},
    )
    return Idefics2ForConditionalGeneration(config), processor


def _idefics2_38m() -> tuple[PreTrainedModel, Any]:
    perceiver: Sizes = {"resampler_depth": 1, "resampler_n_heads": 4, "num_key_value_heads": 2}
    text: Sizes = {"hidden_size": 512, "intermediate_size": 1280, "num_hidden_layers": 8, "vocab_size": 6800}
    text |= {"num_attention_heads": 8, "num_key_value_heads": 2, "perceiver": perceiver}
    vision = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4}
    return _idefics2(text, {**vision, "image_size": 224, "patch_size": 14})


def _idefics2_8b() -> tuple[PreTrainedModel, Any]:
    perceiver: Sizes = {"resampler_depth": 3, "resampler_n_heads": 16, "num_key_value_heads": 4}
    text: Sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 32003}
    text |= {"num_attention_heads": 32, "num_key_value_heads": 8, "perceiver": perceiver}
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
    return _idefics2(text, {**vision, "image_size": 980, "patch_size": 14})


def _qwen2_5_vl(text: Sizes, vision: Sizes) -> tuple[PreTrainedModel, Any]:
    """Images of 224 pixels take 64 tokens and two around them, as an Idefics2's do."""
    tokenizer = build_tokenizer(WORDS, QWEN_SPECIAL)
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 56**2, "longest_edge": 1280 * 28**2})
    processor = without_video(Qwen2_5_VLProcessor)(images, tokenizer, None)
    names = {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    names |= {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    ids: Sizes = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    config = Qwen2_5_VLConfig(
        text_config={"rope_parameters": MROPE, **text},
        vision_config={"out_hidden_size": text["hidden_size"], **vision},
        **ids,
    )
    return Qwen2_5_VLForConditionalGeneration(config), processor


def _idefics2_1m() -> tuple[PreTrainedModel, Any]:
    perceiver: Sizes = {"resampler_depth": 1, "resampler_n_heads": 2, "num_key_value_heads": 2}
    text: Sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 128}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "perceiver": perceiver}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return _idefics2(text, {**vision, "image_size": 32, "patch_size": 8})


def _qwen2_5_vl_1m() -> tuple[PreTrainedModel, Any]:
    text: Sizes = {"hidden_size": 256, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 128}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    return _qwen2_5_vl(text, {"hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 2})


def _qwen2_5_vl_7b() -> tuple[PreTrainedModel, Any]:
    text: Sizes = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "vocab_size": 152064}
    text |= {"num_attention_heads": 28, "num_key_value_heads": 4}
    return _qwen2_5_vl(text, {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "num_heads": 16})


SIZES: dict[str, tuple[Callable[[], tuple[PreTrainedModel, Any]], int]] = {
    "idefics2_38m": (_idefics2_38m, 224),
    "idefics2_8b": (_idefics2_8b, 980),
    "idefics2_1m": (_idefics2_1m, 32),  # for the tests
    "qwen2_5_vl_1m": (_qwen2_5_vl_1m, 56),
    "qwen2_5_vl_7b": (_qwen2_5_vl_7b, 224),
}
