"""Refuses settings that no code path accepts, before anything is loaded."""

from __future__ import annotations

from stv_exp.config import Config, ModelConfig, setting
from stv_exp.errors import StvError
from stv_exp.methods.method import Method
from stv_exp.metrics import METRICS

_CHOICES = {
    "job": ("run", "pretrain", "check_data"),
    "dataset.metric": tuple(METRICS),
    "demonstrations.choice": ("random", "balanced", "nearest_question", "nearest_image", "facility_location"),
    "method.site": ("head", "attention", "mlp", "residual"),
    "model.dtype": ("auto", "float32", "bfloat16", "float16"),
    "model.attention": ("sdpa", "eager", "flash_attention_2"),
    "model.quantization": ("none", "int8", "int4"),
    "policy.reward": ("all", "first"),
    "insertion.when": ("every_step", "prompt"),
    "insertion.mode": ("replace", "add", "blend"),
    "trainer.accelerator": ("cpu", "cuda", "mps"),
    "tracker.name": ("wandb", "tensorboard", "csv", "none"),
    "tracker.mode": ("offline", "online"),
}
_NOT_THE_TEMPLATES = ("add_generation_prompt", "continue_final_message", "conversation", "chat_template", "tokenize")
_AT_LEAST_ONE = (
    "dataset.episode.ways",
    "dataset.partition",
    "dataset.support",
    "dataset.eval",
    "dataset.max_new_tokens",
    "scan.pairs",
    "scan.shots",
    "trainer.batch_size",
)


def check(config: Config) -> None:
    """Refuse values no code path accepts, before anything is loaded; raises `StvError` with the choices."""
    for key, allowed in _CHOICES.items():
        if (value := setting(config, key)) not in allowed:
            raise StvError(f"{key}={value} is unknown; choose one of {', '.join(allowed)}.")
    for key in _AT_LEAST_ONE:
        if (value := setting(config, key)) < 1:
            raise StvError(f"{key}={value} leaves nothing to work on; it must be at least 1.")
    if not 0 <= config.dataset.label_noise <= 1:
        raise StvError(f"dataset.label_noise={config.dataset.label_noise} is no share; it must lie in 0-1.")
    _check_chat(config.model)
    if config.job == "run":
        Method.of(config).check()


def _check_chat(model: ModelConfig) -> None:
    given = model.chat_arguments or {}
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise StvError(f"model.chat_arguments={given} are no names with values; write {{enable_thinking: false}}.")
    if given and not model.chat:
        raise StvError(
            f"model.chat_arguments ({', '.join(given)}) are read by a chat template only; set model.chat=true or leave "
            "them out."
        )
    for key in given:
        if key in _NOT_THE_TEMPLATES:
            raise StvError(f"model.chat_arguments.{key} is set by the prompt itself; leave it out.")
