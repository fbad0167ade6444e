"""From `conf/` and overrides to a checked `Config`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf, StringNode

from stv_exp.check_config import checked
from stv_exp.complaint import unknown
from stv_exp.config import Config
from stv_exp.errors import StvError
from stv_exp.methods.method import Method, refuse_unread


def config_folder() -> str:
    """`conf/` beside `src/` in a checkout, inside the package in a wheel."""
    package = Path(__file__).parent
    return str(next(f for f in (package / "conf", package.parents[1] / "conf") if f.is_dir()))


def to_config(cfg: DictConfig) -> Config:
    """The checked dataclasses of a composed config."""
    plain = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    _refuse_added(plain, schema())
    return checked(cast(Config, OmegaConf.to_object(OmegaConf.merge(schema(), plain))))


@cache  # a sweep composes hundreds of jobs; a merge leaves it as it is
def schema() -> DictConfig:
    """The typed config that YAML and command line are merged into.

    Text is text: YAML's `no` would become "False", and `1.10` as the name of a revision "1.1".
    """
    typed = OmegaConf.structured(Config)
    _keep_text(typed)
    return typed


def _keep_text(node: DictConfig) -> None:
    for key in map(str, node):
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            _keep_text(child)
        elif isinstance(child, StringNode | ListConfig):
            child._set_flag("convert", False)


def _refuse_added(given: DictConfig, known: DictConfig, prefix: str = "") -> None:
    """Raise `StvError` for a key that is not in the schema: `+` and `++` add any, and a merge lets them be."""
    for key in map(str, given):
        if key not in known.keys():  # noqa: SIM118 - a mandatory value counts as not in it
            raise StvError(unknown(f"{prefix}{key}"))
        inner: Any = known._get_node(key)
        if isinstance(inner, DictConfig) and OmegaConf.get_type(inner) is not dict:
            _refuse_added(given[key], inner, f"{prefix}{key}.")


def check_given(overrides: Iterable[str], jobs: Sequence[Config]) -> None:
    """Raise `StvError` for a setting of the command line that the method of none of the jobs reads."""
    keys = [str(override.key_or_group) for override in OverridesParser.create().parse_overrides(list(overrides))]
    refuse_unread(keys, [Method.of(job) for job in jobs])
