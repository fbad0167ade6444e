"""Experiment trackers: views of a run, never its source. The only file that imports wandb.

W&B runs offline by default (no account, no question); TensorBoard and CSV go through Lightning's loggers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from stv_exp.config import Config
from stv_exp.data.task import Task
from stv_exp.errors import StvError
from stv_exp.report.pictures import location_map

if TYPE_CHECKING:
    from stv_exp.artefacts.bank import Bank
    from stv_exp.stages.evaluate import Prediction


@dataclass(frozen=True)
class Outcome:
    """What a finished run has to show."""

    folder: Path
    metrics: dict[str, Any]
    task: Task
    predictions: list[Prediction]
    bank: Bank | None


class Tracker:
    """Shows a run through any Lightning logger (None: not at all)."""

    def __init__(self, config: Config, logger: Logger | None = None) -> None:
        self.config = config
        self.logger = logger

    def replay(self, history: dict[str, list[float]]) -> None:
        """Log the curves of a search that was found in the store instead of run."""
        if self.logger is not None:
            for step, values in enumerate(zip(*history.values(), strict=True)):
                self.logger.log_metrics(dict(zip(history, values, strict=True)), step)

    def finish(self, outcome: Outcome) -> None:
        """Log the result of a run."""
        if self.logger is not None:
            self.logger.log_metrics({k: v for k, v in outcome.metrics.items() if isinstance(v, int | float)})
            self.logger.save()


class WandbTracker(Tracker):
    """Adds what W&B can show: summary, heat map, predictions with their images, the vector as an artifact."""

    def __init__(self, config: Config, run: Any) -> None:
        super().__init__(config, WandbLogger(experiment=run))
        self.run = run

    def finish(self, outcome: Outcome) -> None:
        import wandb

        self.run.summary.update(outcome.metrics)
        media: dict[str, Any] = {"predictions": self._table(outcome)}
        if outcome.bank is not None and outcome.bank.scores is not None:
            media["location_scores"] = wandb.Image(location_map(outcome.bank))
        self.run.log(media)
        vector = outcome.folder / "task_vector.safetensors"
        if vector.is_file():
            name = outcome.folder.name
            artifact = wandb.Artifact(f"task-vector-{name}", type="task_vector", metadata={"run": name})
            artifact.add_file(str(vector))
            self.run.log_artifact(artifact)

    def _table(self, outcome: Outcome) -> Any:
        import wandb

        pictures = {e.id: e.images for e in outcome.task.evaluation}
        rows: list[Any] = []
        for p in outcome.predictions[: self.config.tracker.images]:
            own = [wandb.Image(load()) for load in pictures[p.id][-1:]]  # of several the query's; a text has none
            rows.append([p.id, *own, p.question, p.answers[0], p.prediction, p.correct])
        shown = ["image"] if outcome.task.evaluation[0].images else []
        return wandb.Table(["id", *shown, "question", "answer", "prediction", "correct"], rows)


@contextmanager
def tracked(config: Config, signature: str) -> Iterator[Tracker]:
    """The tracker that `config.tracker` names, closed at the end, so that jobs of one process stay apart."""
    if config.tracker.name == "wandb":
        # Not `with run`: on an error W&B would print a traceback over the one sentence that the user is owed.
        run = _wandb_run(config, signature)
        code = 1
        try:
            yield WandbTracker(config, run)
            code = 0
        finally:
            run.finish(exit_code=code)
        return
    logger = _logger(config, signature)
    try:
        yield Tracker(config, logger)
    finally:
        if logger is not None:
            logger.finalize("success")


def _logger(config: Config, signature: str) -> Logger | None:
    if config.tracker.name == "csv":
        return CSVLogger(config.outputs, name="csv", version=signature)
    if config.tracker.name == "tensorboard":
        try:
            return TensorBoardLogger(config.outputs, name="tensorboard", version=signature)
        except ModuleNotFoundError as error:
            raise StvError("tracker=tensorboard needs its package; run: pip install 'stv_exp[tensorboard]'.") from error
    return None


def _wandb_run(config: Config, signature: str) -> Any:
    import wandb

    folder = Path(config.outputs)
    folder.mkdir(parents=True, exist_ok=True)
    quiet = wandb.Settings(console="off", x_disable_stats=True, silent=config.tracker.mode == "offline")
    # Offline runs cannot be resumed: each attempt at a signature is a W&B run of its own.
    attempt = os.urandom(3).hex()
    return wandb.init(
        project=config.tracker.project,
        mode=config.tracker.mode,  # type: ignore[arg-type]
        dir=folder,
        id=f"{signature}-{attempt}",
        name=f"{config.method.name}-{config.dataset.task}-{config.seed}",
        group=config.study,
        job_type=config.method.name,
        config=asdict(config) | {"signature": signature},
        reinit="finish_previous",
        settings=quiet,
    )
