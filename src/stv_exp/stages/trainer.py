"""Lightning trainers for stages: no loggers, checkpoints or summaries, a progress bar where asked for."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader, Dataset

from stv_exp import interruption
from stv_exp.config import TrainerConfig
from stv_exp.progress import Meter
from stv_exp.stages.progress import StageProgress

# Advice on data loading and hardware at every stage of every job would hide what the job has to say.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*does not have many workers.*")
warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")


class Stage(LightningModule):
    """A module whose batches are lists of prompts or examples; the backbone moves its own tensors.

    `stage` is what it is called while it runs.
    """

    stage: ClassVar[str]

    def transfer_batch_to_device(self, batch: list[Any], device: torch.device, dataloader_idx: int) -> list[Any]:
        return batch


class Interruption(Callback):
    """Stops at the next batch where a signal's exception got lost; Lightning would exit with 1 on Ctrl-C."""

    def on_train_batch_start(self, *_: object) -> None:
        interruption.check()

    def on_predict_batch_start(self, *_: object) -> None:
        interruption.check()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt):
            raise exception


def make_trainer(
    config: TrainerConfig,
    inference: bool = True,
    logger: Logger | None = None,
    callbacks: Sequence[Callback] = (),
    meter: Meter | None = None,
    **kwargs: Any,
) -> Trainer:
    """A trainer on the CPU: the backbone is on its own device and is all that is worth one there.

    `inference=False` where gradients are needed. `meter` tells how far it is.
    """
    counted = [StageProgress(meter)] if meter else []
    return Trainer(
        accelerator="cpu",
        devices=1,
        logger=logger or False,
        log_every_n_steps=1,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[Interruption(), *callbacks, *counted],
        plugins=[LightningEnvironment()],  # else the variables of Slurm decide how many processes there are
        inference_mode=inference,
        **kwargs,
    )


def predict(module: Stage, items: Sequence[object], config: TrainerConfig) -> list[Any]:
    """`predict_step` over batches of `items`, in order; one result a batch."""
    loader = DataLoader(Items(items), batch_size=config.batch_size, collate_fn=list)
    meter = Meter(module.stage, len(items), bar=config.progress_bar)
    return make_trainer(config, meter=meter).predict(module, loader) or []


class Items(Dataset[object]):
    """A sequence as a dataset."""

    def __init__(self, items: Sequence[object]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.items[index]
