"""Counts the items of a stage while Lightning runs it: its own bars say "Predicting DataLoader 0" and "Epoch 0"."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from stv_exp.progress import Meter


class StageProgress(Callback):
    """Those of a batch of a prediction, one a step of a training."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.meter.begin(max(self.meter.done, trainer.global_step))

    def on_predict_start(self, *_: object) -> None:
        self.meter.begin(0)

    def on_predict_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, *_: object
    ) -> None:
        self.meter.advance(len(batch))

    def on_train_batch_end(self, *_: object) -> None:
        self.meter.advance()

    def teardown(self, *_: object, **__: object) -> None:
        self.meter.close()

    def on_exception(self, *_: object) -> None:
        self.meter.close()
