"""A frozen model behind four operations: encode prompts, capture heads, score answers, generate.

What differs between model families stays in here; everything above sees tensors and strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils.logging import disable_progress_bar

from stv_exp.config import ModelConfig, TemplateConfig
from stv_exp.data.prompts import Prompt
from stv_exp.errors import StvError
from stv_exp.models.heads import captured, find_heads, last_positions
from stv_exp.models.sources import model_folder
from stv_exp.task_vector import TaskVector


class Backbone:
    """A frozen model with its processor, on one device, in evaluation mode."""

    def __init__(self, model: PreTrainedModel, processor: Any, name: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.tokenizer.padding_side = "left"
        self.name = name
        self.heads = find_heads(model)
        self.forwards = 0
        self.tokens = 0
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    @property
    def device(self) -> torch.device:
        return self.model.device

    def _count(self, module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        self.forwards += 1
        self.tokens += kwargs["input_ids"].numel()

    def encode(self, prompts: Sequence[Prompt]) -> BatchFeature:
        """Left-padded model inputs of a batch of prompts."""
        images = [p.images for p in prompts]
        text = [p.text for p in prompts]
        batch = self.processor(text=text, images=images if any(images) else None, padding=True, return_tensors="pt")
        return batch.to(self.device)

    def encode_answers(self, answers: Sequence[str], template: TemplateConfig) -> list[Tensor]:
        """Token ids of each answer as it follows a prompt, without special tokens."""
        texts = [template.answer.format(answer=answer) for answer in answers]
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [torch.tensor(i, device=self.device) for i in ids]

    @torch.inference_mode()
    def capture(self, batch: BatchFeature) -> Tensor:
        """Head activations at each prompt's last token, float32 on the CPU `[B, L, H, D]` (one forward)."""
        mask = batch["attention_mask"]
        last = last_positions(mask, mask.shape[0], mask.shape[1], mask.device)
        with captured(self.heads, last) as activations:
            self.model(**batch, position_ids=positions(mask), use_cache=False, logits_to_keep=1)
        return torch.stack(activations, dim=1).float().cpu()

    @torch.inference_mode()
    def generate(
        self, batch: BatchFeature, max_new_tokens: int, vector: TaskVector | None = None, when: str = "every_step"
    ) -> list[str]:
        """Greedy continuations of a batch, cut at the first newline, with `vector` inserted if given."""
        with vector.inserted(self.model, when) if vector else nullcontext():
            ids = self.model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
        texts = self.tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip().split("\n")[0].strip() for text in texts]


def positions(attention_mask: Tensor) -> Tensor:
    """Position ids `[B, T]` that count real tokens, so that padding does not shift a prompt."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


disable_progress_bar()  # one bar a weight file says nothing that the job's own lines do not


@lru_cache(maxsize=1)
def _load(name: str, folder: Path, dtype: str, attention: str, device: str) -> Backbone:
    try:
        processor = AutoProcessor.from_pretrained(folder)
        model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation=attention, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise StvError(f"model.name={name} cannot be loaded ({reason}); check the folder or the hub id.") from error
    nn.Module.to(model, device)
    return Backbone(model, processor, name)


def load_backbone(config: ModelConfig, accelerator: str = "cpu") -> Backbone:
    """Load a frozen model once a process: jobs of one sweep share it."""
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise StvError("trainer.accelerator=cuda needs a CUDA device and torch sees none; use trainer=cpu.")
    return _load(config.name, model_folder(config.name), config.dtype, config.attention, accelerator)
