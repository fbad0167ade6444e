"""Hydra's own sweeper, and a list of variants crossed with its grid: a comparison is rarely a plain product.

`few_shot` varies by shots and `stv` by its sensitivity, on the same tasks and seeds. An experiment says so with
`hydra.sweeper.variants`, a list of lines that each hold a small grid as one would type it, beside
`hydra.sweeper.params`, the grid that they share; `hydra.sweeper.tasks` are such lines of tasks, crossed with them. Of a
list of experiments each has its own, and `hydra.sweeper.subset` draws some of the jobs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
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
from stv_exp.grids import grid, job_overrides, once, parsed, plain, subset
from stv_exp.jobs import check, look_up
from stv_exp.title import titles

log = logging.getLogger(__name__)

Plugins.instance()  # its scan executes Hydra's plugins anew, after which a class of an earlier import is a stale one
from hydra._internal.core_plugins.basic_launcher import BasicLauncher  # noqa: E402
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf  # noqa: E402

PLUGIN = "hydra_plugins.stv_exp.VariantSweeper"  # Hydra starts no plugin whose name has another first part


@dataclass
class VariantSweeperConf(BasicSweeperConf):
    """`variants` are lines such as `method=few_shot method.shots=1,5`, split by shell rules; `tasks` are as well.

    `subset` is how many of the jobs run, drawn by `subset_seed`; all without.
    """

    _target_: str = PLUGIN
    variants: list[Any] | None = None  # of text; `parse_variant` refuses the rest in words
    tasks: list[Any] | None = None
    subset: int | None = None
    subset_seed: int = 0


Good = tuple[list[str], Config]  # a job's overrides and what they make
REFUSALS = (StvError, HydraException, OmegaConfBaseException)


class FailFast(BaseException):
    """Ends a sweep at its first fault; no `Exception`, as Hydra keeps those until all jobs have run."""


class VariantSweeper(BasicSweeper):
    """Checks the jobs of `job_overrides` before the first one starts, and runs those that can work."""

    def __init__(
        self,
        max_batch_size: int | None,
        params: Mapping[str, str] | None = None,
        variants: Sequence[object] | None = None,
        tasks: Sequence[object] | None = None,
        subset: int | None = None,
        subset_seed: int = 0,
    ) -> None:
        super().__init__(max_batch_size, dict(params or {}))
        self.variants = list(variants or [])
        self.tasks = list(tasks or [])
        self.subset = subset
        self.subset_seed = subset_seed

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run the jobs; raises `StvError` with all refusals and failures once the others are done."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(self.hydra_context.config_loader)
        given = parser.parse_overrides(arguments)
        every = self._jobs(given, parser)
        jobs = subset(every, self.subset, self.subset_seed)
        good, refused = self._checked(jobs, every, [str(override.input_line) for override in given])
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
        named = [o for o in given if plain(o.get_key_element()) == "experiment" and o.is_sweep_override()]
        if not named:
            return job_overrides(*parsed(self.params, given, self.variants, self.tasks, parser))
        others = [override for override in given if override not in named]
        jobs: list[list[str]] = []
        for experiment in grid(named):
            sweeper = self._sweeper_of(experiment)
            variants, tasks = (sweeper.get(key) or [] for key in ("variants", "tasks"))
            shared = sweeper.get("params") or {}, [*parser.parse_overrides(experiment), *others]
            jobs += job_overrides(*parsed(*shared, variants, tasks, parser))
        return once(jobs)

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

    def _checked(
        self, jobs: Sequence[list[str]], every: Sequence[list[str]], given: Sequence[str]
    ) -> tuple[list[Good], dict[str, str]]:
        """The jobs that can work, and of the others the sentence; with `fail_fast` there may be no others.

        Raises `StvError` for what the command line gives and no method of the sweep reads, drawn by `subset` or not.
        """
        assert self.hydra_context is not None and self.config is not None
        composer = Composer(self.hydra_context.config_loader, self.config)
        good, refused, configs = list[Good](), dict[str, str](), list[Config]()
        for job in jobs:
            try:
                configs.append(composer.config(job))
                check(configs[-1])
                good.append((job, configs[-1]))
            except REFUSALS as error:
                refused[" ".join(job)] = str(complaint(error))
        if configs and all(config.job == "run" for config in configs):
            others = [job for job in every if job not in jobs] if self.subset else []
            check_given(given, [*configs, *_composed(composer, others)])
        if any(config.fail_fast for config in configs):
            _refuse(len(jobs), refused, [])
        for words, sentence in refused.items():
            log.error("Refused: %s: %s", words, sentence)
        return good, refused


def _composed(composer: Composer, jobs: Iterable[list[str]]) -> Iterator[Config]:
    """The settings of the jobs that have some."""
    for job in jobs:
        with suppress(*REFUSALS):
            yield composer.config(job)


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
