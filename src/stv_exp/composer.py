"""Composes the jobs of a sweep: what they choose (model, dataset, method) once, and the values on top of it for each.

A sweep of hundreds of look-ups would else spend its time on reading the same files of `conf/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cached_property

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, open_dict

from stv_exp.compose import to_config
from stv_exp.config import Config


class Composer:
    """The jobs of one command, whose config is `command`."""

    def __init__(self, loader: ConfigLoader, command: DictConfig) -> None:
        assert isinstance(loader, ConfigLoaderImpl)  # which says what groups there are
        self.loader = loader
        self.command = command
        self._bases: dict[tuple[str, ...], DictConfig] = {}

    def config(self, job: Sequence[str]) -> Config:
        """The checked settings of a job by its overrides; raises what Hydra and `to_config` raise."""
        overrides = self._parser.parse_overrides(list(job))
        chosen = tuple(str(o.input_line) for o in overrides if self._chooses(o))
        composed = deepcopy(self._base(chosen))
        values = [o for o in overrides if not self._chooses(o) and not str(o.key_or_group).startswith("hydra.")]
        ConfigLoaderImpl._apply_overrides_to_config(values, composed)
        return to_config(composed)

    @cached_property
    def _parser(self) -> OverridesParser:
        return OverridesParser.create(self.loader)

    def _chooses(self, override: Override) -> bool:
        """Whether an override decides which files there are, or takes something away: these come before all values."""
        return override.is_delete() or self.loader.repository.group_exists(str(override.key_or_group))

    def _base(self, chosen: tuple[str, ...]) -> DictConfig:
        if chosen not in self._bases:
            composed = self.loader.load_sweep_config(self.command, list(chosen))
            with open_dict(composed):
                del composed["hydra"]
            self._bases[chosen] = composed
        return self._bases[chosen]
