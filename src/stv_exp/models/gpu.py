"""A GPU a process: those of one machine that know nothing of each other take a free one each."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from tempfile import gettempdir

import torch
from filelock import FileLock

log = logging.getLogger(__name__)


@cache
def take() -> FileLock | None:
    """Make a GPU that no other process has taken the current one, until this process ends; None where all are taken."""
    for i in range(torch.cuda.device_count()):
        lock = FileLock(Path(gettempdir()) / f"stv_exp-gpu-{torch.cuda.get_device_properties(i).uuid}.lock")
        try:
            lock.acquire(blocking=False)
        except OSError:  # taken, or another user's
            continue
        torch.cuda.set_device(i)
        return lock
    log.info("Other processes have taken every GPU: this one shares theirs.")
    return None
