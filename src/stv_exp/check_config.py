"""Refuses settings that no code path accepts, before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from string import Formatter
from typing import Any

from stv_exp import ranges
from stv_exp.config import Config, ModelConfig, setting
from stv_exp.data.files import expanded
from stv_exp.errors import StvError
from stv_exp.methods.method import Method
from stv_exp.models.dtype import resolve

LIMITS = dict(ranges.limits(Config))
_NOT_THE_TEMPLATES = ("add_generation_prompt", "continue_final_message", "conversation", "chat_template", "tokenize")
_FEW = 8  # examples and pairs of `debug`
_FILLED_IN = {"demonstration": {"question", "answer"}, "query": {"question"}, "answer": {"answer"}}


def checked(config: Config) -> Config:
    """The settings as they are used: `~` expanded in paths, the dtype `auto` replaced, as results depend on both.

    Raises `StvError`, with what it may be, for a value that no code path accepts.
    """
    for key, limit in LIMITS.items():
        ranges.check_limit(key, setting(config, key), limit)
    for section in ("dataset", "fit"):
        for name, allowed in _FILLED_IN.items():
            _check_template(f"{section}.template.{name}", setting(config, f"{section}.template.{name}"), allowed)
    _check_chat(config.model)
    if config.job == "run":
        Method.of(config).check()
    config = _smaller(_with_paths(config))
    dtype, _ = resolve(config.model.dtype, config.trainer.accelerator)
    return replace(config, model=replace(config.model, dtype=dtype))


def _smaller(config: Config) -> Config:
    """With `limit` and `debug` as what they change, so that they are part of no signature themselves."""
    if config.debug:
        config = _debugged(config)
    if not config.limit:
        return config
    data = config.dataset
    return replace(
        config, dataset=replace(data, support=min(data.support, config.limit), eval=min(data.eval, config.limit))
    )


def _debugged(config: Config) -> Config:
    """As little as still passes through every line: enough pairs for the clusters, enough support for the shots."""
    policy, method, train = config.policy, config.method, config.train
    pairs = min(config.scan.pairs, max(_FEW, method.m))
    validation = min(config.dataset.validation, 2)  # which the support gives
    examples = validation + max(_FEW, config.scan.shots + 1, method.shots + 1)
    most = {"steps": 4, "queries": 1, "members": 1, "samples": 2, "selection_draws": 2, "selection_items": 2}
    few = {name: min(getattr(policy, name), n) for name, n in most.items()}
    return replace(
        config,
        limit=min(config.limit or examples, examples),
        dataset=replace(config.dataset, validation=validation),
        scan=replace(config.scan, pairs=pairs, effect_prompts=min(config.scan.effect_prompts, 2)),
        budget=0,
        policy=replace(policy, budget=0, **few),
        train=replace(train, epochs=1, batch=min(train.batch, 2), shots=min(train.shots, _FEW - 1)),
        tracker=replace(config.tracker, name="none"),
    )


def _check_template(name: str, text: str, allowed: set[str]) -> None:
    try:
        held = {
            (field, spec, conversion) for _, field, spec, conversion in Formatter().parse(text) if field is not None
        }
        stray = held - {(field, "", None) for field in allowed}
    except ValueError:
        stray = {("", "", None)}
    if stray:
        raise StvError(
            f"{name}={text!r} cannot be filled in; it may hold "
            f"{' and '.join(map(_braced, sorted(allowed)))}, and any other brace is written twice, {{{{ or }}}}."
        )


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


def _braced(name: str) -> str:
    return f"{{{name}}}"


def _with_paths(config: Config) -> Config:
    paths = [key for key, limit in LIMITS.items() if isinstance(limit, ranges.Path)]
    for key in paths:
        if (value := setting(config, key)).startswith("~"):
            config = _changed(config, key.split("."), str(expanded(value)))
    return config


def _changed(config: Any, keys: list[str], value: str) -> Any:
    first, *rest = keys
    return replace(config, **{first: _changed(getattr(config, first), rest, value) if rest else value})
