"""What a job is called among others: its method and the settings that vary, as in `stv k=8 m=1 seed 0`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict

from stv_exp.config import Config
from stv_exp.methods.method import Method
from stv_exp.report.damage import flat

_BARE = {"dataset.name", "dataset.task", "model.name"}  # values that need no key
_UNTOLD = {"method.name", "method.where", "method.what", "method.how", "method.edit"}
_UNTOLD |= {"dataset.loader", "outputs", "study"}
_OWN = ("method", "policy", "scan", "bank", "insertion", "train")  # sections of which a method reads some


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
    """The titles of the jobs of a sweep: what all have in common is left out, and what a method does not read."""
    if len(configs) == 1:
        return [title(configs[0])]
    settings = [flat(asdict(config), "config") for config in configs]
    keys = dict.fromkeys(key for values in settings for key in values)
    varying = [key for key in keys if len({repr(values.get(key)) for values in settings}) > 1]
    return [title(config, [key for key in varying if _is_read(config, key)] or ["seed"]) for config in configs]


def _asked_first(config: Config) -> list[str]:
    size = [key for key in ("method.k", "method.m", "method.shots") if _is_read(config, key)]
    return [*size, "dataset.task", "seed"]


def _is_read(config: Config, key: str) -> bool:
    """Whether a setting says something about the job: those of other methods keep what they were."""
    method = Method.of(config)
    if key in ("method.k", "method.m"):
        return method.inserts and key in method.reads
    if key == "method.shots":
        return config.method.shots > 0
    return (
        key.partition(".")[0] not in ("method", "policy", "scan", "bank", "insertion", "train") or key in method.reads
    )


def _word(key: str, value: object) -> str:
    if key in _BARE:
        return str(value).rpartition("/")[2]
    return f"{key.rpartition('.')[2]}={value}"
