"""Refuses settings that no code path accepts, before anything is loaded."""

from __future__ import annotations

from typing import Any

from stv_exp.config import Config, MethodConfig
from stv_exp.errors import StvError
from stv_exp.metrics import METRICS

_CHOICES = {
    "job": ("run", "pretrain", "check_data"),
    "dataset.metric": tuple(METRICS),
    "demonstrations.choice": ("random", "balanced", "nearest_question", "nearest_image", "facility_location"),
    "method.where": ("none", "sensitivity", "random", "all", "learned"),
    "method.what": ("none", "mean", "clusters"),
    "method.how": ("none", "random", "reinforce"),
    "method.sensitivity": ("l2", "mean_delta", "snr", "cosine"),
    "model.dtype": ("float32", "bfloat16", "float16"),
    "model.attention": ("sdpa", "eager", "flash_attention_2"),
    "model.quantization": ("none", "int8", "int4"),
    "policy.reward": ("all", "first"),
    "insertion.when": ("every_step", "prompt"),
    "insertion.mode": ("replace", "add"),
    "trainer.accelerator": ("cpu", "cuda", "mps"),
    "tracker.name": ("wandb", "tensorboard", "csv", "none"),
    "tracker.mode": ("offline", "online"),
}
_AT_LEAST_ONE = (
    "dataset.episode.ways",
    "dataset.partition",
    "dataset.support",
    "dataset.eval",
    "dataset.max_new_tokens",
    "scan.pairs",
    "scan.shots",
    "method.m",
    "policy.steps",
    "policy.queries",
    "trainer.batch_size",
)


def check(config: Config) -> None:
    """Refuse values no code path accepts, before anything is loaded; raises `StvError` with the choices."""
    for key, allowed in _CHOICES.items():
        if (value := _get(config, key)) not in allowed:
            raise StvError(f"{key}={value} is unknown; choose one of {', '.join(allowed)}.")
    for key in _AT_LEAST_ONE:
        if (value := _get(config, key)) < 1:
            raise StvError(f"{key}={value} leaves nothing to work on; it must be at least 1.")
    _check_method(config.method)
    if config.policy.samples < 2:
        raise StvError(
            f"policy.samples={config.policy.samples} has no advantage to standardise; it must be at least 2."
        )
    if config.method.what == "clusters" and config.method.m > config.scan.pairs:
        raise StvError(
            f"method.m={config.method.m} candidates cannot be made of scan.pairs={config.scan.pairs} activations "
            "a location; lower method.m or raise scan.pairs."
        )
    if not 0 <= config.dataset.label_noise <= 1:
        raise StvError(f"dataset.label_noise={config.dataset.label_noise} is no share; it must lie in 0-1.")


def _check_method(method: MethodConfig) -> None:
    """Refuse combinations of the three choices that mean nothing."""
    if method.where == "none":
        wrong = (method.what, method.how) != ("none", "none")
        need = "what=none and how=none: there is nowhere to insert"
    elif method.where == "learned":
        wrong = (method.what, method.how) != ("mean", "reinforce")
        need = "what=mean and how=reinforce: the search is over heads, not over candidates"
    else:
        wrong = method.what == "none"
        need = "what=mean or what=clusters"
    if wrong:
        raise StvError(
            f"method.where={method.where} does not go with what={method.what}, how={method.how}; use {need}."
        )


def _get(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
