"""Hydra's own sweeper, and a list of variants crossed with its grid: a comparison is rarely a plain product.

`few_shot` varies by shots and `stv` by its sensitivity, on the same tasks and seeds. An experiment says so with
`hydra.sweeper.variants`, a list of lines that each hold a small grid as one would type it, beside
`hydra.sweeper.params`, the grid that they share.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from stv_exp.complaint import complaint
from stv_exp.compose import check_given, to_config
from stv_exp.config import Config
from stv_exp.errors import StvError
from stv_exp.jobs import check

log = logging.getLogger(__name__)

Plugins.instance()  # its scan executes Hydra's plugins anew, after which a class of an earlier import is a stale one
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf  # noqa: E402

PLUGIN = "hydra_plugins.stv_exp.VariantSweeper"  # Hydra starts no plugin whose name has another first part


@dataclass
class VariantSweeperConf(BasicSweeperConf):
    """`variants` are lines such as `method=few_shot method.shots=1,5`, split by shell rules."""

    _target_: str = PLUGIN
    variants: list[Any] | None = None  # of text; `parse_variant` refuses the rest in words


class FailFast(BaseException):
    """Ends a sweep at its first fault; no `Exception`, as Hydra keeps those until all jobs have run."""


class VariantSweeper(BasicSweeper):
    """Checks the jobs of `job_overrides` before the first one starts, and runs those that can work."""

    def __init__(
        self,
        max_batch_size: int | None,
        params: Mapping[str, str] | None = None,
        variants: Sequence[object] | None = None,
    ) -> None:
        super().__init__(max_batch_size, dict(params or {}))
        self.variants = list(variants or [])

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run the jobs; raises `StvError` with all refusals and failures once the others are done."""
        assert self.hydra_context is not None and self.launcher is not None
        parser = OverridesParser.create(self.hydra_context.config_loader)
        params, given = parser.parse_overrides(self._parse_config()), parser.parse_overrides(arguments)
        jobs = job_overrides(params, given, [parse_variant(line, parser) for line in self.variants])
        good, refused = self._checked(jobs, [str(override.input_line) for override in given])
        results: list[JobReturn] = []
        for batch in self.split_overrides_to_chunks(good, self.max_batch_size) if good else ():
            results += self.launcher.launch(batch, initial_job_idx=len(results))
        _refuse(len(jobs), refused, [_failure(*pair) for pair in zip(good, results, strict=True) if _failed(pair[1])])
        return results

    def _checked(self, jobs: Sequence[list[str]], given: Sequence[str]) -> tuple[list[list[str]], dict[str, str]]:
        """The jobs that can work, and of the others the sentence; with `fail_fast` there may be no others.

        Raises `StvError` for what the command line gives and the method of no job reads.
        """
        good, refused, configs = list[list[str]](), dict[str, str](), list[Config]()
        for job in jobs:
            try:
                configs.append(self._composed(job))
                check(configs[-1])
                good.append(job)
            except (StvError, HydraException, OmegaConfBaseException) as error:
                refused[" ".join(job)] = str(complaint(error))
        if configs and all(config.job == "run" for config in configs):
            check_given(given, configs)
        if any(config.fail_fast for config in configs):
            _refuse(len(jobs), refused, [])
        for words, sentence in refused.items():
            log.error("Refused: %s: %s", words, sentence)
        return good, refused

    def _composed(self, job: Sequence[str]) -> Config:
        assert self.hydra_context is not None and self.config is not None
        return to_config(self.hydra_context.config_loader.load_sweep_config(self.config, list(job)))


def _refuse(n_jobs: int, refused: Mapping[str, str], failed: Sequence[str]) -> None:
    """Raise `StvError` where there is a job that cannot work or has failed: a line each, after how many there are."""
    lines = [*(f"{job}: {sentence}" for job, sentence in refused.items()), *failed]
    if len(lines) == 1:
        raise StvError(lines[0])
    if lines:
        raise StvError(
            f"{len(refused)} of {n_jobs} jobs were refused and {len(failed)} have failed:\n  " + "\n  ".join(lines)
        )


def _failed(done: JobReturn) -> bool:
    return done.status != JobStatus.COMPLETED


def _failure(job: Sequence[str], done: JobReturn) -> str:
    error = done._return_value  # its property raises it
    return f"{' '.join(job)}: {complaint(error) or f'{type(error).__name__}: {error}'}"


def register() -> None:
    """Make `hydra/sweeper: variants` a choice.

    `Plugins.register` would file the class under its real name, which Hydra then refuses to start.
    """
    Plugins.instance().class_name_to_class[PLUGIN] = VariantSweeper
    ConfigStore.instance().store(group="hydra/sweeper", name="variants", node=VariantSweeperConf)


def parse_variant(line: object, parser: OverridesParser) -> list[Override]:
    """The overrides of one line; `StvError` where it is not a grid of them."""
    try:
        if not isinstance(line, str):
            raise ValueError("it is no text")  # but a mapping, of `- method: stv`
        found = parser.parse_overrides(shlex.split(line))
        _grid(found)  # refuses what only other sweepers can sweep over, such as interval(0, 1)
    except (ValueError, HydraException) as error:
        raise StvError(
            f"hydra.sweeper.variants: the line {str(line)!r} cannot be read ({_reason(error)}); "
            "write it as on the command line, such as method=few_shot method.shots=1,5."
        ) from error
    return found


def job_overrides(
    params: Sequence[Override], given: Sequence[Override], variants: Sequence[Sequence[Override]]
) -> list[list[str]]:
    """The overrides of each job, once each: the grid of `params` and `given`, and in each of its points all variants.

    `given`, the command line, wins over both. A variant wins over `params`, as it is the more specific of the two.
    """
    taken = _keys(given)
    if "method" in taken and any("method" in _keys(variant) for variant in variants):
        variants = []  # other settings of a variant belong to its method
    if not variants:
        return _once(_grid([*params, *given]))
    points = _grid([*_without(taken, params), *given])
    lines = [_without(taken, variant) for variant in variants]
    grids = [(_keys(line), _grid(line)) for line in lines]
    return _once([*_less(point, own), *chosen] for point in points for own, grid in grids for chosen in grid)


def _grid(overrides: Sequence[Override]) -> list[list[str]]:
    """The product, the first override varying slowest."""
    (jobs,) = BasicSweeper.split_arguments(list(overrides), None)
    return jobs


def _once(jobs: Iterable[list[str]]) -> list[list[str]]:
    return [list(job) for job in dict.fromkeys(map(tuple, jobs))]


def _without(keys: set[str], overrides: Iterable[Override]) -> list[Override]:
    return [o for o in overrides if _plain(o.get_key_element()) not in keys]


def _less(point: Iterable[str], keys: set[str]) -> list[str]:
    return [text for text in point if _plain(text) not in keys]


def _keys(overrides: Iterable[Override]) -> set[str]:
    return {_plain(o.get_key_element()) for o in overrides}


def _plain(text: str) -> str:
    """The key of `key=value` without Hydra's prefix for adding or deleting it."""
    return text.partition("=")[0].lstrip("+~")


def _reason(error: Exception) -> str:
    """What Hydra says, without its link and the arrow below the text."""
    lines = str(error).partition("\nSee ")[0].split("\n")
    return ": ".join(line for line in (line.strip(" ^") for line in lines) if line)
