"""The state of a search on disk while it runs: killed and started again, it goes on where it was."""

from __future__ import annotations

import logging
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

log = logging.getLogger(__name__)
EVERY = timedelta(seconds=2)  # what a kill costs at most, beside a step
_NAME = "last"


def checkpoints(folder: Path) -> ModelCheckpoint:
    """The callback that keeps the newest state in `folder`."""
    # Lightning warns of a folder that holds the state of an earlier attempt: it is there to be replaced.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* not empty")
    return ModelCheckpoint(
        folder, filename=_NAME, train_time_interval=EVERY, save_top_k=1, enable_version_counter=False
    )


def newest(folder: Path) -> dict[str, Any] | None:
    """The state that an earlier attempt has left, None where there is none that can be read."""
    path = folder / f"{_NAME}.ckpt"
    if not path.is_file():
        return None
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:  # killed while it was written: whatever torch raises then
        log.warning("%s is damaged (%s); the search starts from its beginning", path, type(error).__name__)
        return None
