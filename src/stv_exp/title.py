"""What a job is called among others: its method and the settings that vary, as in `stv k=8 m=1 seed 0`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict

from stv_exp.config import Config, setting
from stv_exp.methods.method import OWN, Method
from stv_exp.report.damage import flat

_BARE = {"dataset.name", "dataset.task", "model.name"}  # values that need no key
_UNTOLD = {"method.name", "dataset.loader", "outputs", "study"}


def title(config: Config, varying: Collection[str] = ()) -> str:
    """The title of a job, told apart from others by `varying` dotted keys; alone, by what one asks first."""
    if config.job != "run":
        return config.job
    keys = varying or _asked_first(config)
    told = [key for key in keys if key not in _UNTOLD and key != "seed"]
    values = flat(asdict(config), "config")
    words = [config.method.name, *(_word(key, values.get(key)) for key in told)]
    return " ".join([*words, f"seed {config.seed}"] if "seed" in keys else words)


def titles(configs: Sequence[Config]) -> list[str]:
    """The titles of the jobs of a sweep: what all have in common is left out, and what a method does not read.

    A method's own settings are told where they vary among its jobs: beside other methods its name tells them.
    """
    if len(configs) == 1:
        return [title(configs[0])]
    settings = [flat(asdict(config), "config") for config in configs]
    everywhere, names = _varying(settings), [config.method.name for config in configs]
    own = {name: _varying([s for s, n in zip(settings, names, strict=True) if n == name]) for name in set(names)}
    told = [
        [key for key in everywhere if (key in own[config.method.name] or not _is_own(key)) and _is_read(config, key)]
        for config in configs
    ]
    return [title(config, keys or ["seed"]) for config, keys in zip(configs, told, strict=True)]


def _varying(settings: Sequence[dict[str, object]]) -> list[str]:
    """The keys that have more than one value."""
    keys = dict.fromkeys(key for values in settings for key in values)
    return [key for key in keys if len({repr(values.get(key)) for values in settings}) > 1]


def _asked_first(config: Config) -> list[str]:
    size = [key for key in ("method.k", "method.m", "method.shots") if _is_read(config, key)]
    return [*size, "dataset.task", "seed"]


def _is_read(config: Config, key: str) -> bool:
    """Whether a setting says something about the job: those of other methods keep what they were."""
    method = Method.of(config)
    if key in ("method.k", "method.m"):
        return key in method.reads
    if key == "method.shots" or key.startswith("fit."):
        return bool(setting(config, key))
    return not _is_own(key) or key in method.reads


def _is_own(key: str) -> bool:
    """Whether a setting belongs to methods."""
    return key.partition(".")[0] in OWN


def _word(key: str, value: object) -> str:
    if key in _BARE:
        return str(value).rpartition("/")[2]
    return f"{key if key.startswith('fit.') else key.rpartition('.')[2]}={value}"
