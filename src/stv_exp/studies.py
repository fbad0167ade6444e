"""The studies that a command adds its runs to: started over once where that is asked for, drawn when all has run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from stv_exp.config import Config
from stv_exp.data.files import expanded
from stv_exp.disk.study import Entry, Study
from stv_exp.errors import StvError
from stv_exp.identity import signatures
from stv_exp.title import title

log = logging.getLogger(__name__)
_joined: dict[Study, bool] = {}  # and whether their tables are printed


class Joined(Callback):
    """For a sweeper that is not ours: its jobs may run in other processes, and this one draws their tables."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        _open(Study(expanded(config.outputs), config.study), config.study_fresh, printed=True)


def join(config: Config, printed: bool, entry: Entry | None = None) -> None:
    """Add a run to its study, and have the study's tables drawn at the end of this process.

    `entry` is what a sweep calls it; a run that is there under such a name keeps it.
    """
    with _warned(config) as study:
        _open(study, config.study_fresh, printed)
        study.add(signatures(config).run, entry or Entry(title(config)))


def add(config: Config) -> None:
    """Add a run to its study, whose tables another process draws."""
    with _warned(config) as study:
        study.add(signatures(config).run, Entry(title(config)))


def entry(config: Config) -> Entry:
    """What a run is called in its study, by its last sweep if it was in any."""
    known = Study(Path(config.outputs), config.study).entry(signatures(config).run)
    return known if known.title else Entry(title(config))


def forget() -> None:
    """Draw nothing."""
    _joined.clear()


def draw() -> bool:
    """Draw a sweep's tables anew, also where some of its jobs failed, and those of single runs where they are old.

    False where there are some that could not be.
    """
    drawn = True
    while _joined:
        study, printed = _joined.popitem()
        if not printed and study.is_drawn:
            continue
        from stv_exp.report.comparison import report

        try:
            report(study.outputs, study.name, printed=printed)
        except StvError as error:  # every job failed: the reason is printed already
            print(f"note: {error}", file=sys.stderr)
            drawn = False
    return drawn


def _open(study: Study, fresh: bool, printed: bool) -> None:
    if fresh and study not in _joined:
        study.clear()
    _joined[study] = printed


@contextmanager
def _warned(config: Config) -> Iterator[Study]:
    """The study of a run; where it cannot be written, the run can still be looked up."""
    study = Study(Path(config.outputs), config.study)
    try:
        yield study
    except OSError as error:
        _joined.pop(study, None)
        log.warning("The study %s cannot be written (%s)", study.folder, error.strerror)
