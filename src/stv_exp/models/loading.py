"""Loads a frozen model with its processor, and says in one sentence why it cannot."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from stv_exp.config import Config, ModelConfig
from stv_exp.errors import StvError
from stv_exp.methods.choice import Grid
from stv_exp.models import gpu
from stv_exp.models.backbone import Backbone
from stv_exp.models.dtype import resolve, say
from stv_exp.models.processors import load_processor, sees_images
from stv_exp.models.qwen_vl_v1.register import register
from stv_exp.models.sites import find_site, head_count
from stv_exp.models.sources import OWN, model_folder
from stv_exp.network import hub_answers

log = logging.getLogger(__name__)
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a kernel that it would fetch for some CPUs is no news
register()  # the one architecture that transformers lacks
disable_progress_bar()  # one bar a weight file says nothing that the job's own lines do not


_kept: dict[tuple[ModelConfig, str], Backbone] = {}
_AVAILABLE: dict[str, Callable[[], bool]] = {
    "cpu": lambda: True,
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
}


def load_backbone(config: ModelConfig, accelerator: str = "cpu") -> Backbone:
    """Load a frozen model once a process: jobs of one sweep share it. Raises `StvError` where that fails."""
    if not _AVAILABLE[accelerator]():
        raise StvError(f"trainer.accelerator={accelerator} needs such a device and torch sees none; use trainer=cpu.")
    resolved = replace(config, dtype=resolve(config.dtype, accelerator)[0])
    key = (resolved, accelerator)
    if key not in _kept:
        forget()
        say(config.name, config.dtype, accelerator)
        if accelerator == "cuda":
            gpu.take()
        _kept[key] = _load(resolved, accelerator)
        _kept[key].loading = (load_backbone, key)
    return _kept[key]


def model_grid(config: Config) -> Grid:
    """The locations that a model will have, from its configuration alone: a check before its weights are loaded.

    Raises `StvError` where the configuration cannot be read, or the model has no such site.
    """
    return _grid(replace(config.model), config.method.site)  # of its own: a key must not change


@cache
def _grid(model: ModelConfig, name: str) -> Grid:
    """Once a process: the jobs of a sweep share a model, and each is checked before the sweep and in its turn."""
    options, source = _options(model), model_folder(model.name)
    try:
        found: Any = AutoConfig.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise StvError(_reason(model, source, error)) from error
    try:
        skeleton = _skeleton(found, model.trust_remote_code)
    except Exception as error:  # code of whoever wrote the model; the scan checks again once the weights are there
        log.info("%s cannot be built without its weights (%s)", model.name, str(error).split("\n")[0])
        text = found.get_text_config(decoder=True)
        return Grid(model.name, name, text.num_hidden_layers, head_count(found) if name == "head" else None)
    site = find_site(skeleton, name, model.heads.pattern)
    return Grid(model.name, name, site.n_layers, site.n_heads, tuple(site.layers))


def load_skeleton(config: ModelConfig) -> Backbone:
    """The model without its weights: it can encode prompts, and so count their tokens, but not run."""
    options, source = _options(config), model_folder(config.name)
    try:
        architecture = AutoConfig.from_pretrained(source, **options)
        processor = load_processor(source, architecture, options)
        skeleton: Any = _skeleton(architecture, config.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise StvError(_reason(config, source, error)) from error
    return Backbone(skeleton, processor, config.name, config.chat, config.heads.pattern, config.chat_arguments)


def _options(config: ModelConfig) -> dict[str, Any]:
    """What every part of a model is loaded with; where the hub does not answer, the cache must do."""
    local = config.name in OWN or Path(config.name).is_dir() or not hub_answers()
    return {"revision": config.revision, "trust_remote_code": config.trust_remote_code, "local_files_only": local}


def _skeleton(config: Any, trust_remote_code: bool) -> nn.Module:
    """The model without weights: which layers have attention, no configuration of a hybrid says in the same way."""
    with torch.device("meta"):
        return _loader(config).from_config(config, trust_remote_code=trust_remote_code)


def forget() -> None:
    """Give the kept model's memory back: two large ones at once would not fit. Its hooks make a cycle, hence gc."""
    _kept.clear()
    gc.collect()


def _load(config: ModelConfig, device: str) -> Backbone:
    options, source = _options(config), model_folder(config.name)
    try:
        model = _load_model(config, source, options)
        processor = load_processor(source, model.config, options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise StvError(_reason(config, source, error)) from error
    if config.device_map is None and config.quantization == "none":
        nn.Module.to(model, device)
    backbone = Backbone(model, processor, config.name, config.chat, config.heads.pattern, config.chat_arguments)
    log.info("%s: %s", config.name, backbone.heads)
    return backbone


def _load_model(config: ModelConfig, source: Path, options: dict[str, Any]) -> PreTrainedModel:
    architecture = AutoConfig.from_pretrained(source, **options)
    model, found = _loader(architecture).from_pretrained(
        source,
        dtype=getattr(torch, config.dtype),
        attn_implementation=config.attention,
        use_safetensors=True,  # no pickle from outside
        device_map=config.device_map,
        quantization_config=_quantization(config),
        output_loading_info=True,
        **options,
    )
    if lacking := sorted(found["missing_keys"]):  # transformers would draw them at random
        raise StvError(
            f"model.name={config.name} cannot be loaded: its weights lack {len(lacking)} tensors of its config.json's "
            f"{type(model).__name__} ({lacking[0]}, for one); fetch both from one repository."
        )
    return model


def _loader(architecture: Any) -> Any:
    return AutoModelForImageTextToText if sees_images(architecture) else AutoModelForCausalLM


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
    "file named model.safetensors": "it has no safetensors, and nothing else is read; for Qwen-VL's old weights run: "
    "python -m stv_exp.convert qwen_vl FOLDER",
    "ignore_mismatched_sizes": "its weights have other shapes than its config.json; fetch both from one repository",
    "gated": "its hub repository is gated; log in with `hf auth login` and accept its licence there",
    "is not a local folder": "it is neither a folder nor a repository of the hub; check the name, or log in",
}


def _reason(config: ModelConfig, source: Path, error: Exception) -> str:
    """One sentence for what transformers and the hub's client say in many."""
    text = str(error).replace(str(source), "it").replace(config.name, "it")  # a name must not read as a reason
    known = next((reason for word, reason in _REASONS.items() if word in text), None)
    lines = text.strip().splitlines() or [type(error).__name__]
    reason = known or f"{lines[0].rstrip('.:;')}; check the folder or the hub id"
    return f"model.name={config.name} cannot be loaded: {reason}."
