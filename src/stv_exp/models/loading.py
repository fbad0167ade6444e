"""Loads a frozen model with its processor, and says in one sentence why it cannot."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from stv_exp.config import ModelConfig
from stv_exp.errors import StvError
from stv_exp.models.backbone import Backbone
from stv_exp.models.processors import load_processor, sees_images
from stv_exp.models.sources import model_folder

log = logging.getLogger(__name__)
disable_progress_bar()  # one bar a weight file says nothing that the job's own lines do not


def load_backbone(config: ModelConfig, accelerator: str = "cpu") -> Backbone:
    """Load a frozen model once a process: jobs of one sweep share it. Raises `StvError` where that fails."""
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise StvError("trainer.accelerator=cuda needs a CUDA device and torch sees none; use trainer=cpu.")
    return _load(replace(config), accelerator)


@lru_cache(maxsize=1)
def _load(config: ModelConfig, device: str) -> Backbone:
    source = model_folder(config.name)
    options: dict[str, Any] = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    try:
        model = _load_model(config, source, options)
        processor = load_processor(source, model.config, options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise StvError(_reason(config, error)) from error
    if config.device_map is None and config.quantization == "none":
        nn.Module.to(model, device)
    backbone = Backbone(model, processor, config.name, config.chat, config.heads.pattern)
    log.info("%s: %s", config.name, backbone.heads)
    return backbone


def _load_model(config: ModelConfig, source: Path, options: dict[str, Any]) -> PreTrainedModel:
    architecture = AutoConfig.from_pretrained(source, **options)
    loader: Any = AutoModelForImageTextToText if sees_images(architecture) else AutoModelForCausalLM
    return loader.from_pretrained(
        source,
        dtype=getattr(torch, config.dtype),
        attn_implementation=config.attention,
        use_safetensors=True,  # no pickle from outside
        device_map=config.device_map,
        quantization_config=_quantization(config),
        **options,
    )


def _quantization(config: ModelConfig) -> BitsAndBytesConfig | None:
    if config.quantization == "none":
        return None
    four = config.quantization == "int4"
    compute = getattr(torch, config.dtype)
    return BitsAndBytesConfig(load_in_4bit=four, load_in_8bit=not four, bnb_4bit_compute_dtype=compute)


_REASONS = {
    "trust_remote_code": "it brings code of its own, which runs only with model.trust_remote_code=true; read it first",
    "bitsandbytes": "model.quantization needs the package bitsandbytes; run: pip install 'stv_exp[large]'",
    "accelerate": "model.device_map needs the package accelerate; run: pip install 'stv_exp[large]'",
    "connect": "the hub cannot be reached and the files are not in the local cache; check the network or give a folder",
    "offline": "the hub cannot be reached and the files are not in the local cache; check the network or give a folder",
    "gated": "its hub repository is gated; log in with `hf auth login` and accept its licence there",
    "is not a local folder": "it is neither a folder nor a repository of the hub; check the name, or log in",
}


def _reason(config: ModelConfig, error: Exception) -> str:
    """One sentence for what transformers and the hub's client say in many."""
    text = str(error)
    known = next((reason for word, reason in _REASONS.items() if word in text), None)
    reason = known or f"{text.strip().splitlines()[0].rstrip('.')}; check the folder or the hub id"
    return f"model.name={config.name} cannot be loaded: {reason}."
