"""The state of a search on disk while it runs: killed and started again, it goes on where it was."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint

log = logging.getLogger(__name__)
EVERY = timedelta(seconds=2)  # what a kill costs at most, beside a step
STATE = "stv_exp"  # under which a module's own state is kept
_NAME = "last.ckpt"


class SearchCheckpoint(Checkpoint):
    """Keeps the newest state in `folder`. Lightning's own keeps none by time where a module optimises by hand."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / _NAME
        self.last = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if time.monotonic() - self.last >= EVERY.total_seconds():
            trainer.save_checkpoint(self.path)
            self.last = time.monotonic()


def newest(folder: Path) -> dict[str, Any] | None:
    """The state that an earlier attempt has left, None where there is none that can be read."""
    found = readable(folder / _NAME, "search")
    return found if found and STATE in found else None  # that of an earlier version is another one


def readable(path: Path, of: str) -> dict[str, Any] | None:
    """What a checkpoint holds, None where there is none; of a damaged one a warning says that `of` begins anew."""
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = torch.load(path, weights_only=True)
    except Exception as error:  # killed while it was written: whatever torch raises then
        log.warning("%s is damaged (%s); the %s starts from its beginning", path, type(error).__name__, of)
        return None
    return found
