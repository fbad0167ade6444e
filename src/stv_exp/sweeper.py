"""Hydra's own sweeper, and a list of variants crossed with its grid: a comparison is rarely a plain product.

`few_shot` varies by shots and `stv` by its sensitivity, on the same tasks and seeds. An experiment says so with
`hydra.sweeper.variants`, a list of lines that each hold a small grid as one would type it, beside
`hydra.sweeper.params`, the grid that they share. Of a list of experiments each has its own, and `hydra.sweeper.subset`
draws some of the jobs.
"""

from __future__ import annotations

import logging
import random
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

from stv_exp import studies
from stv_exp.complaint import complaint
from stv_exp.compose import check_given
from stv_exp.composer import Composer
from stv_exp.config import Config
from stv_exp.disk.study import Entry
from stv_exp.errors import StvError
from stv_exp.jobs import check, look_up
from stv_exp.title import titles

log = logging.getLogger(__name__)

Plugins.instance()  # its scan executes Hydra's plugins anew, after which a class of an earlier import is a stale one
from hydra._internal.core_plugins.basic_launcher import BasicLauncher  # noqa: E402
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf  # noqa: E402

PLUGIN = "hydra_plugins.stv_exp.VariantSweeper"  # Hydra starts no plugin whose name has another first part


@dataclass
class VariantSweeperConf(BasicSweeperConf):
    """`variants` are lines such as `method=few_shot method.shots=1,5`, split by shell rules.

    `subset` is how many of the jobs run, drawn by `subset_seed`; all without.
    """

    _target_: str = PLUGIN
    variants: list[Any] | None = None  # of text; `parse_variant` refuses the rest in words
    subset: int | None = None
    subset_seed: int = 0


Good = tuple[list[str], Config]  # a job's overrides and what they make


class FailFast(BaseException):
    """Ends a sweep at its first fault; no `Exception`, as Hydra keeps those until all jobs have run."""


class VariantSweeper(BasicSweeper):
    """Checks the jobs of `job_overrides` before the first one starts, and runs those that can work."""

    def __init__(
        self,
        max_batch_size: int | None,
        params: Mapping[str, str] | None = None,
        variants: Sequence[object] | None = None,
        subset: int | None = None,
        subset_seed: int = 0,
    ) -> None:
        super().__init__(max_batch_size, dict(params or {}))
        self.variants = list(variants or [])
        self.subset = subset
        self.subset_seed = subset_seed

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run the jobs; raises `StvError` with all refusals and failures once the others are done."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(self.hydra_context.config_loader)
        given = parser.parse_overrides(arguments)
        jobs = _subset(self._jobs(given, parser), self.subset, self.subset_seed)
        good, refused = self._checked(jobs, [str(override.input_line) for override in given])
        configs = [config for _, config in good]
        if any(config.plan for config in configs):
            from stv_exp.plan import show_plan  # which knows models

            _refuse(len(jobs), refused | show_plan(configs), [])
            return []
        _join_studies(configs)
        left = [pair for pair in good if look_up(pair[1]) is None]  # which costs no process of a launcher
        results = self._launched([job for job, _ in left], any(config.fail_fast for config in configs))
        _refuse(len(jobs), refused, _failures(left, results))
        return results

    def _jobs(self, given: Sequence[Override], parser: OverridesParser) -> list[list[str]]:
        """The overrides of each job; each experiment of a list has a grid of its own."""
        named = [o for o in given if _plain(o.get_key_element()) == "experiment" and o.is_sweep_override()]
        if not named:
            return job_overrides(*_parsed(self.params, given, self.variants, parser))
        others = [override for override in given if override not in named]
        jobs: list[list[str]] = []
        for experiment in _grid(named):
            sweeper = self._sweeper_of(experiment)
            grid = sweeper.get("params") or {}, [*parser.parse_overrides(experiment), *others]
            jobs += job_overrides(*_parsed(*grid, sweeper.get("variants") or [], parser))
        return _once(jobs)

    def _sweeper_of(self, experiment: list[str]) -> Mapping[Any, Any]:
        """What an experiment sets of `hydra.sweeper`; nothing for one that does not compose: its job is refused."""
        assert self.hydra_context is not None and self.config is not None
        try:
            return self.hydra_context.config_loader.load_sweep_config(self.config, experiment).hydra.sweeper
        except HydraException:
            return {}

    def _launched(self, good: list[list[str]], fail_fast: bool) -> list[JobReturn]:
        """What became of the jobs; with `fail_fast` and other processes, those of the batch that fails are the last."""
        results: list[JobReturn] = []
        for batch in self.split_overrides_to_chunks(good, self.max_batch_size) if good else ():
            results += self._launch(batch, len(results))
            if fail_fast and any(map(_failed, results)):
                break
        return results

    def _launch(self, batch: list[list[str]], first: int) -> Sequence[JobReturn]:
        assert self.launcher is not None
        try:
            return self.launcher.launch(batch, initial_job_idx=first)
        except Exception as error:
            if isinstance(self.launcher, BasicLauncher) or complaint(error):
                raise
            raise StvError(
                f"The launcher has given up ({type(error).__name__}: {_first_line(error)}); run the same command "
                "again, it goes on from what is finished."
            ) from error

    def _checked(self, jobs: Sequence[list[str]], given: Sequence[str]) -> tuple[list[Good], dict[str, str]]:
        """The jobs that can work, and of the others the sentence; with `fail_fast` there may be no others.

        Raises `StvError` for what the command line gives and the method of no job reads.
        """
        assert self.hydra_context is not None and self.config is not None
        composer = Composer(self.hydra_context.config_loader, self.config)
        good, refused, configs = list[Good](), dict[str, str](), list[Config]()
        for job in jobs:
            try:
                configs.append(composer.config(job))
                check(configs[-1])
                good.append((job, configs[-1]))
            except (StvError, HydraException, OmegaConfBaseException) as error:
                refused[" ".join(job)] = str(complaint(error))
        if configs and all(config.job == "run" for config in configs):
            check_given(given, configs)
        if any(config.fail_fast for config in configs):
            _refuse(len(jobs), refused, [])
        for words, sentence in refused.items():
            log.error("Refused: %s: %s", words, sentence)
        return good, refused


def _join_studies(configs: Sequence[Config]) -> None:
    """Before the first job, so that all are seen to be awaited, and a study is started over once by this process."""
    for i, (config, title) in enumerate(zip(configs, titles(configs), strict=True), 1):
        if config.job == "run" and not config.debug:
            studies.join(config, printed=True, entry=Entry(title, i, len(configs)))


def _refuse(n_jobs: int, refused: Mapping[str, str], failed: Sequence[str]) -> None:
    """Raise `StvError` where there is a job that cannot work or has failed: a line each, after how many there are."""
    lines = [*(f"{job}: {sentence}" for job, sentence in refused.items()), *failed]
    if len(lines) == 1:
        raise StvError(lines[0])
    if lines:
        raise StvError(
            f"{len(refused)} of {n_jobs} jobs were refused and {len(failed)} have failed:\n  " + "\n  ".join(lines)
        )


def _failures(good: Sequence[Good], results: Sequence[JobReturn]) -> list[str]:
    return [_failure(job, done) for (job, _), done in zip(good, results, strict=False) if _failed(done)]


def _failed(done: JobReturn) -> bool:
    return done.status != JobStatus.COMPLETED


def _failure(job: Sequence[str], done: JobReturn) -> str:
    error = done._return_value  # its property raises it
    return f"{' '.join(job)}: {complaint(error) or f'{type(error).__name__}: {error}'}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


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


def _parsed(
    params: Mapping[Any, Any], given: Sequence[Override], variants: Sequence[object], parser: OverridesParser
) -> tuple[list[Override], Sequence[Override], list[list[Override]]]:
    """A grid as it is written, for `job_overrides`."""
    words = [f"{key}={value}" for key, value in params.items()]
    return parser.parse_overrides(words), given, [parse_variant(line, parser) for line in variants]


def _subset(jobs: Sequence[list[str]], n: int | None, seed: int) -> list[list[str]]:
    """`n` of the jobs, in their order; all of them without it, or where there are fewer."""
    if n is None or n >= len(jobs):
        return list(jobs)
    if n < 1:
        raise StvError(f"hydra.sweeper.subset={n} is not possible; it must be at least 1.")
    return [jobs[i] for i in sorted(random.Random(seed).sample(range(len(jobs)), n))]


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
