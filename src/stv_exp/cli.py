"""The command line. Hydra lives here: it composes `conf/` and the overrides into a `Config` and starts the job."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from stv_exp import interruption, studies
from stv_exp.check_config import LIMITS
from stv_exp.complaint import complaint
from stv_exp.compose import check_given, config_folder, schema, to_config
from stv_exp.config import Config
from stv_exp.data.files import expanded
from stv_exp.errors import StvError
from stv_exp.methods.registry import KINDS, choices, summary
from stv_exp.models.dtype import say
from stv_exp.sweeper import FailFast, register

log = logging.getLogger(__name__)


def main() -> int:
    """Entry point: the exit code; bad input ends in one sentence instead of a traceback."""
    traceback_wanted = "HYDRA_FULL_ERROR" in os.environ
    # With it Hydra raises instead of printing and exiting, so that every error passes through `complaint`.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    code, logging.raiseExceptions = 0, False  # a full disk is told once, not for every line that the log has lost
    try:
        _prepare_arguments()
        hydra.main(version_base="1.3", config_path=config_folder(), config_name="config")(Job())()
    except (Exception, FailFast) as error:
        interruption.check()
        sentence = complaint(error)
        if sentence is None or traceback_wanted:
            raise
        print(f"Error: {sentence}", file=sys.stderr)
        code = 1
    return code if studies.draw() else 1


def configure(*overrides: str) -> Config:
    """The config of a job as the command line would make it: `configure("method=stv", "method.k=8")`."""
    with initialize_config_dir(config_folder(), version_base="1.3"):
        return to_config(compose("config", list(overrides)))


def _prepare_arguments() -> None:
    """Take `experiment=x` for `+experiment=x`, which Hydra wants; find own modules in the folder of `--config-dir`.

    A user's own loaders and choices lie beside their YAML.
    """
    sys.argv[1:] = [f"+{word}" if word.startswith("experiment=") else word for word in sys.argv[1:]]
    found = get_args_parser().parse_known_args()[0].config_dir
    if found:
        folder = str(expanded(found).absolute())
        named = {found: folder, f"--config-dir={found}": f"--config-dir={folder}"}
        sys.argv[1:] = [named.get(word, word) for word in sys.argv[1:]]
        sys.path.insert(0, folder)


def _signature(*, _root_: DictConfig) -> str:
    """Resolver for Hydra's folders: a single run and a sweep's job with the same settings share one."""
    from stv_exp.identity import signatures

    return signatures(to_config(_root_)).run


def _outputs_folder(debug: bool) -> str:
    """Resolver for `outputs`: with `debug` a folder that lives as long as this process."""
    return _scratch().name if debug else "outputs"


@cache
def _scratch() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="stv_exp-debug-")


def _limits() -> str:
    """Resolver for `--help`: what settings may be."""
    return "\n".join(["What settings may be:", *(f"  {key:<32}{limit}" for key, limit in LIMITS.items())])


def _parts() -> str:
    """Resolver for `--help`: the choices that a method is made of, from their registry."""
    lines = ["A method is three choices, or an edit; each may also be the dotted path of a class of your own:"]
    for kind in KINDS:
        lines += [f"\nmethod.{kind}=", *(f"  {name:<16}{summary(found)}" for name, found in choices(kind).items())]
    return "\n".join(lines)


OmegaConf.register_new_resolver("signature", _signature, replace=True)
OmegaConf.register_new_resolver("outputs_folder", _outputs_folder, replace=True)
OmegaConf.register_new_resolver("expanded", lambda path: str(expanded(path)), replace=True)
OmegaConf.register_new_resolver("gpus", lambda accelerator, n: n if accelerator == "cuda" else None, replace=True)
OmegaConf.register_new_resolver("limits", _limits, replace=True)
OmegaConf.register_new_resolver("method_parts", _parts, replace=True)
ConfigStore.instance().store(name="schema", node=schema())
register()


class Job:
    """What Hydra calls: in another process too, where it stands in the same folder and finds the same modules."""

    def __call__(self, cfg: DictConfig) -> float | None:
        if "SUBMITIT_EXECUTOR" in os.environ:  # which hears signals itself, and queues the job again
            return _job(cfg)
        with interruption.interruptible():
            return _job(cfg)

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (str(Path.cwd()), sys.path)


def _arrived(folder: str, modules: list[str]) -> Job:
    """The job in a process of a launcher, which may have been started anywhere."""
    os.chdir(folder)
    sys.path += [path for path in modules if path not in sys.path]
    logging.raiseExceptions = False
    return Job()


def _job(cfg: DictConfig) -> float | None:
    try:
        return _done(cfg)
    finally:
        with suppress(OSError):  # of a run that is there it is not empty
            Path(HydraConfig.get().runtime.output_dir).rmdir()  # Hydra makes it, and a report would call it damaged


def _done(cfg: DictConfig) -> float | None:
    config, overrides = to_config(cfg), list(HydraConfig.get().overrides.task)
    sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
    if config.job == "run" and not sweeping:
        check_given(overrides, [config])  # a sweep is checked as a whole, before its first job
    from stv_exp import jobs

    if config.plan:
        _plan(config, sweeping)
        return None
    if config.job == "run":
        if not config.debug:
            _join(config, sweeping)
        say(config.model.name, cfg.model.dtype, config.trainer.accelerator)
    try:
        return jobs.start(config, overrides)
    except Exception as error:
        interruption.check()
        if not sweeping:
            studies.forget()  # there is nothing new to compare
            raise
        raise _failed(error, config.fail_fast) from error


def _plan(config: Config, sweeping: bool) -> None:
    """What a single job would do, once it is known that it can work; a grid's plan is its sweeper's."""
    from stv_exp import jobs
    from stv_exp.plan import show_plan

    if sweeping:
        sweeper = HydraConfig.get().runtime.choices["hydra/sweeper"]
        raise StvError(
            f"sweeper={sweeper} finds its jobs by the scores of those before; plan=true is for sweeper=grid."
        )
    jobs.check(config)
    for sentence in show_plan([config]).values():
        raise StvError(sentence)


def _join(config: Config, sweeping: bool) -> None:
    """Tables are drawn by the process of the command, which is not this one where a launcher has others."""
    if _one_process():
        studies.join(config, printed=sweeping)
    else:
        studies.add(config)


def _failed(error: Exception, fail_fast: bool) -> BaseException:
    """What tells a sweep of a failure: a sentence, since not every error survives the way between processes."""
    sentence = complaint(error) or f"{type(error).__name__}: {error}"
    log.error("Failed: %s", sentence)  # Hydra raises it at the end
    return FailFast(sentence) if fail_fast and _one_process() else StvError(sentence)


def _one_process() -> bool:
    return HydraConfig.get().runtime.choices["hydra/launcher"] == "basic"
