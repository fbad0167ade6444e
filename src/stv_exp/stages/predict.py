"""A stage over all its items, on one device or on several.

Of several, each has a process with a copy of the model that runs every n-th batch. The batches are those of one device
and are put together by number: none is padded, none comes twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.utils.data import DataLoader

from stv_exp import interruption
from stv_exp.config import TrainerConfig
from stv_exp.data.prompts import Prompt, longest_first
from stv_exp.errors import StvError
from stv_exp.models.backbone import COUNTED, Backbone
from stv_exp.progress import Meter
from stv_exp.stages.trainer import Items, Stage, make_trainer


def predict(module: Stage, items: Sequence[object], config: TrainerConfig) -> list[Any]:
    """`predict_step` over batches of `items`, in order; one result a batch.

    Raises `StvError` for what cannot be handed to the processes of other devices, or goes wrong in one.
    """
    if config.devices > 1 and hasattr(module, "backbone") and len(items) > config.batch_size:
        return _shared(module, items, config)
    meter = Meter(module.stage, len(items), bar=config.progress_bar)
    return make_trainer(config, meter=meter).predict(module, _loader(items, config)) or []


def predict_in_order(module: Stage, prompts: Sequence[Prompt], config: TrainerConfig) -> Tensor:
    """The rows `[N, ...]` that a stage gives out, a prompt each; run longest first, so that little is padded."""
    order = longest_first(prompts)
    parts = predict(module, [prompts[i] for i in order], config)
    return torch.cat(parts)[torch.tensor(order).argsort()]


def _loader(items: Sequence[object], config: TrainerConfig) -> DataLoader[object]:
    return DataLoader(Items(items), batch_size=config.batch_size, collate_fn=list)


def _shared(module: Stage, items: Sequence[object], config: TrainerConfig) -> list[Any]:
    _check(module.backbone, config)
    n_batches = -(-len(items) // config.batch_size)
    with TemporaryDirectory(prefix="stv_exp-") as name:
        folder = Path(name)
        running = _started(module, items, config, folder)
        try:
            _wait(running, Meter(module.stage, n_batches, bar=config.progress_bar), folder)
        finally:
            for process in running.processes:
                process.kill()
        for path in sorted(folder.glob("*.error")):
            raise StvError(path.read_text(encoding="utf-8"))
        _add_counts(module.backbone, folder)
        paths = (folder / f"{i}.pt" for i in range(n_batches))
        return [torch.load(path, weights_only=True) for path in paths]


def _check(backbone: Backbone, config: TrainerConfig) -> None:
    there = torch.cuda.device_count()
    if backbone.device.type != "cpu" and config.devices > there:
        raise StvError(f"trainer.devices={config.devices} exceeds the {there} GPUs that torch sees; lower it.")


def _started(module: Stage, items: Sequence[object], config: TrainerConfig, folder: Path) -> Any:
    try:
        return spawn(_run_share, (module, list(items), config, folder), nprocs=config.devices, join=False)
    except StvError:
        raise
    except Exception as error:  # whatever examples say that cannot be sent to another process
        raise StvError(
            f"trainer.devices={config.devices} hands examples to other processes, which these do not allow ({error}); "
            "have the loader name functions of a module, by functools.partial, or set trainer.devices=1."
        ) from error


def _wait(running: Any, meter: Meter, folder: Path) -> None:
    meter.begin(0)
    try:
        while not running.join(timeout=0.5):
            interruption.check()
            meter.advance(len(list(folder.glob("*.pt"))) - meter.done)
    finally:
        meter.close()


def _add_counts(backbone: Backbone, folder: Path) -> None:
    for path in folder.glob("*.json"):
        for name, n in json.loads(path.read_text()).items():
            setattr(backbone, name, getattr(backbone, name) + n)


def _run_share(rank: int, module: Stage, items: Sequence[object], config: TrainerConfig, folder: Path) -> None:
    """Every n-th batch, in a process of its own; what it has found and counted is left in `folder`."""
    n, size = config.devices, config.batch_size
    torch.set_num_threads(max(1, (config.threads or torch.get_num_threads()) // n))
    try:
        share = [item for start in range(rank * size, len(items), n * size) for item in items[start : start + size]]
        trainer = make_trainer(replace(config, progress_bar=False), callbacks=[_Kept(folder, rank, n)])
        trainer.predict(module, _loader(share, config), return_predictions=False)
    except StvError as error:
        (folder / f"{rank}.error").write_text(str(error), encoding="utf-8")
    else:
        counted = {name: getattr(module.backbone, name) for name in COUNTED}
        (folder / f"{rank}.json").write_text(json.dumps(counted))


class _Kept(Callback):
    """Writes what came of each batch, under the number that it has among all."""

    def __init__(self, folder: Path, rank: int, n: int) -> None:
        self.folder = folder
        self.rank = rank
        self.n = n

    def on_predict_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: object
    ) -> None:
        torch.save(outputs, self.folder / f"{self.rank + batch_idx * self.n}.pt")
