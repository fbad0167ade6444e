"""Turns an exception that bad input caused into one sentence: what, where, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from stv_exp.config import Config
from stv_exp.errors import StvError


def complaint(error: BaseException) -> str | None:
    """The sentence for `error`, or None where it is a defect of ours that deserves its traceback."""
    chain = list(_causes(error))
    sentences: dict[type[BaseException], Callable[[Any], str]] = {
        StvError: str,
        MissingConfigException: _missing_choice,
        MissingMandatoryValue: _missing_value,
        ConfigKeyError: _unknown_key,
        ConfigAttributeError: _unknown_key,
        OmegaConfBaseException: _first_line,
        HydraException: _first_line,
    }
    for kind, sentence in sentences.items():
        for found in chain:
            if isinstance(found, kind):
                return sentence(found)
    return None


def keys(config: Any = Config, prefix: str = "") -> list[str]:
    """Every dotted key that the schema knows."""
    found: list[str] = []
    for f in fields(config):
        default = f.default_factory() if callable(f.default_factory) else f.default
        found += keys(default, f"{prefix}{f.name}.") if is_dataclass(default) else [prefix + f.name]
    return found


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _missing_choice(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    choices = ", ".join(error.options or [])
    return f"{group}={name} is unknown; choose one of {choices}." if choices else _first_line(error)


def _missing_value(error: MissingMandatoryValue) -> str:
    return f"{error.full_key or 'A setting'} has no value; set it on the command line or in an experiment."


def _unknown_key(error: OmegaConfBaseException) -> str:
    key = str(error.full_key or error.key)
    close = difflib.get_close_matches(key, keys(), n=1)
    return f"{key} is not a setting" + (f"; did you mean {close[0]}?" if close else "; see conf/ for those there are.")


def _first_line(error: BaseException) -> str:
    key = getattr(error, "full_key", None)
    line = str(error).strip().split("\n")[0].rstrip(".")
    return f"{key}: {line}." if key else f"{line}."
