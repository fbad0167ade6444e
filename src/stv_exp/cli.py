"""The command line. Hydra lives here: it composes `conf/` and the overrides into a `Config` and starts the job."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from stv_exp.complaint import complaint
from stv_exp.compose import check_given, config_folder, to_config
from stv_exp.config import Config
from stv_exp.errors import StvError
from stv_exp.methods.registry import KINDS, choices, summary
from stv_exp.models.dtype import say
from stv_exp.sweeper import register

log = logging.getLogger(__name__)
_studies: list[tuple[str, str]] = []


def main() -> int:
    """Entry point: the exit code; bad input ends in one sentence instead of a traceback."""
    traceback_wanted = "HYDRA_FULL_ERROR" in os.environ
    # With it Hydra raises instead of printing and exiting, so that every error passes through `complaint`.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    code = 0
    _open_config_dir()
    try:
        _job()
    except Exception as error:
        sentence = complaint(error)
        if sentence is None or traceback_wanted:
            raise
        print(f"Error: {sentence}", file=sys.stderr)
        code = 1
    finally:
        _report_studies()
    return code


def configure(*overrides: str) -> Config:
    """The config of a job as the command line would make it: `configure("method=stv", "method.k=8")`."""
    with initialize_config_dir(config_folder(), version_base="1.3"):
        return to_config(compose("config", list(overrides)))


def _open_config_dir() -> None:
    """Put the folder of `--config-dir` on the module path: a user's own loaders and choices lie beside their YAML."""
    found = get_args_parser().parse_known_args()[0].config_dir
    if found:
        sys.path.insert(0, str(Path(found).absolute()))


class SweepReport(Callback):
    """Notes that a sweep starts; its table is printed when the process ends, also when some jobs failed."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        study = (str(config.outputs), str(config.study))
        for entry in Path(study[0], "sweeps", study[1]).glob("*.run"):
            entry.unlink()
        _studies.append(study)


def _signature(*, _root_: DictConfig) -> str:
    """Resolver for Hydra's folders: a single run and a sweep's job with the same settings share one."""
    from stv_exp.identity import signatures

    return signatures(to_config(_root_)).run


def _parts() -> str:
    """Resolver for `--help`: the choices that a method is made of, from their registry."""
    lines = ["A method is made of three choices; each may also be the dotted path of a class of your own:"]
    for kind in KINDS:
        lines += [f"\nmethod.{kind}=", *(f"  {name:<16}{summary(found)}" for name, found in choices(kind).items())]
    return "\n".join(lines)


OmegaConf.register_new_resolver("signature", _signature, replace=True)
OmegaConf.register_new_resolver("method_parts", _parts, replace=True)
ConfigStore.instance().store(name="schema", node=Config)
register()


@hydra.main(version_base="1.3", config_path=config_folder(), config_name="config")
def _job(cfg: DictConfig) -> float | None:
    config, overrides = to_config(cfg), list(HydraConfig.get().overrides.task)
    if config.job == "run" and HydraConfig.get().mode == RunMode.RUN:
        check_given(overrides, [config])  # a sweep is checked as a whole, before its first job
    from stv_exp import jobs

    _join_study(config)
    if config.job == "run":
        say(config.model.name, cfg.model.dtype, config.trainer.accelerator)
    return jobs.start(config, overrides)


def _join_study(config: Config) -> None:
    from stv_exp.identity import signatures

    folder = Path(config.outputs, "sweeps", config.study)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{signatures(config).run}.run").touch()


def _report_studies() -> None:
    while _studies:
        outputs, study = _studies.pop()
        from stv_exp.report.comparison import report

        try:
            report(Path(outputs), study)
        except StvError as error:  # every job failed: the reason is printed already
            print(f"note: {error}", file=sys.stderr)
