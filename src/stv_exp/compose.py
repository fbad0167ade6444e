"""From `conf/` and overrides to a checked `Config`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from stv_exp.check_config import check
from stv_exp.config import Config
from stv_exp.methods.method import Method, refuse_unread
from stv_exp.models.dtype import resolve


def config_folder() -> str:
    """`conf/` beside `src/` in a checkout, inside the package in a wheel."""
    package = Path(__file__).parent
    return str(next(f for f in (package / "conf", package.parents[1] / "conf") if f.is_dir()))


def to_config(cfg: DictConfig) -> Config:
    """The checked dataclasses of a composed config; a dtype `auto` is replaced, as results depend on it."""
    plain = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    config = cast(Config, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), plain)))
    check(config)
    config.model.dtype, _ = resolve(config.model.dtype, config.trainer.accelerator)
    return config


def check_given(overrides: Iterable[str], jobs: Sequence[Config]) -> None:
    """Raise `StvError` for a setting of the command line that the method of none of the jobs reads."""
    keys = [str(override.key_or_group) for override in OverridesParser.create().parse_overrides(list(overrides))]
    refuse_unread(keys, [Method.of(job) for job in jobs])
