"""The command line. Hydra lives here: it composes `conf/` and the overrides into a `Config` and starts the job."""

from __future__ import annotations

import logging
import os
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from stv_exp import interruption
from stv_exp.check_config import LIMITS
from stv_exp.complaint import complaint
from stv_exp.compose import check_given, config_folder, schema, to_config
from stv_exp.config import Config
from stv_exp.data.files import expanded
from stv_exp.disk.study import Entry, Study
from stv_exp.errors import StvError
from stv_exp.methods.registry import KINDS, choices, summary
from stv_exp.models.dtype import say
from stv_exp.sweeper import FailFast, register
from stv_exp.title import title

log = logging.getLogger(__name__)
_joined: dict[Study, bool] = {}  # studies that jobs of this process belong to, and whether their tables are printed


def main() -> int:
    """Entry point: the exit code; bad input ends in one sentence instead of a traceback."""
    traceback_wanted = "HYDRA_FULL_ERROR" in os.environ
    # With it Hydra raises instead of printing and exiting, so that every error passes through `complaint`.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    code, logging.raiseExceptions = 0, False  # a full disk is told once, not for every line that the log has lost
    try:
        _prepare_arguments()
        _job()
    except (Exception, FailFast) as error:
        interruption.check()
        sentence = complaint(error)
        if sentence is None or traceback_wanted:
            raise
        print(f"Error: {sentence}", file=sys.stderr)
        code = 1
    _report_studies()
    return code


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
    lines = ["A method is made of three choices; each may also be the dotted path of a class of your own:"]
    for kind in KINDS:
        lines += [f"\nmethod.{kind}=", *(f"  {name:<16}{summary(found)}" for name, found in choices(kind).items())]
    return "\n".join(lines)


OmegaConf.register_new_resolver("signature", _signature, replace=True)
OmegaConf.register_new_resolver("outputs_folder", _outputs_folder, replace=True)
OmegaConf.register_new_resolver("expanded", lambda path: str(expanded(path)), replace=True)
OmegaConf.register_new_resolver("limits", _limits, replace=True)
OmegaConf.register_new_resolver("method_parts", _parts, replace=True)
ConfigStore.instance().store(name="schema", node=schema())
register()


@hydra.main(version_base="1.3", config_path=config_folder(), config_name="config")
def _job(cfg: DictConfig) -> float | None:
    config, overrides = to_config(cfg), list(HydraConfig.get().overrides.task)
    sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
    if config.job == "run" and not sweeping:
        check_given(overrides, [config])  # a sweep is checked as a whole, before its first job
    from stv_exp import jobs

    if config.job == "run":
        if not config.debug:
            _join_study(config, sweeping)
        say(config.model.name, cfg.model.dtype, config.trainer.accelerator)
    try:
        return jobs.start(config, overrides)
    except Exception as error:
        interruption.check()
        if not sweeping:
            _joined.clear()  # there is nothing new to compare
            raise
        log.error("Failed: %s", complaint(error) or f"{type(error).__name__}: {error}")  # Hydra raises it at the end
        if config.fail_fast:
            raise FailFast from error
        raise


def _join_study(config: Config, sweeping: bool) -> None:
    """Add a run to its study; where that cannot be written, the run can still be looked up."""
    from stv_exp.identity import signatures

    study = Study(Path(config.outputs), config.study)
    try:
        if config.study_fresh and study not in _joined:
            study.clear()
        study.add(signatures(config).run, Entry(title(config)))
        _joined[study] = sweeping
    except OSError as error:
        log.warning("The study %s cannot be written (%s)", study.folder, error.strerror)


def _report_studies() -> None:
    """Draw a sweep's tables anew, also where some of its jobs failed, and those of single runs where they are old."""
    while _joined:
        study, printed = _joined.popitem()
        if not printed and study.is_drawn:
            continue
        from stv_exp.report.comparison import report

        try:
            report(study.outputs, study.name, printed=printed)
        except StvError as error:  # every job failed: the reason is printed already
            print(f"note: {error}", file=sys.stderr)
