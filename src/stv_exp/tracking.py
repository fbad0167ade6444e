"""Experiment trackers: views of a run, never its source. The only file that imports wandb.

W&B runs offline by default (no account, no question); TensorBoard and CSV go through Lightning's loggers. A tracker
that fails costs a warning and the rest of its view, never the run: results are on disk before it sees them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from stv_exp.config import Config
from stv_exp.data.task import Task
from stv_exp.errors import StvError
from stv_exp.report.pictures.sensitivity import location_map

if TYPE_CHECKING:
    from stv_exp.artefacts.bank import Bank
    from stv_exp.stages.evaluate import Prediction

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a finished run has to show."""

    folder: Path
    metrics: dict[str, Any]
    task: Task
    predictions: list[Prediction]
    bank: Bank | None


class View(Logger):
    """A logger for stages that passes on what it is told until that fails once."""

    def __init__(self, inner: Logger, name: str) -> None:
        super().__init__()
        self.inner: Logger | None = inner
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> int | str | None:
        return self.inner.version if self.inner else None

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.show(lambda inner: inner.log_metrics(metrics, step))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Settings are shown for a run as a whole, not for a stage."""

    def show(self, what: Callable[[Logger], object]) -> None:
        """Hand the tracker to `what`, unless it has failed before."""
        if self.inner is not None:
            try:
                what(self.inner)
            except Exception as error:  # whatever a library of a tracker raises
                self.inner = None
                _warn(self._name, error)


class Tracker:
    """Shows a run through any Lightning logger (None: not at all)."""

    def __init__(self, config: Config, logger: Logger | None = None) -> None:
        self.config = config
        self.logger = View(logger, config.tracker.name) if logger is not None else None

    def replay(self, history: dict[str, list[float]]) -> None:
        """Log the curves of a search that was found in the store instead of run."""
        if self.logger is not None:
            for step, values in enumerate(zip(*history.values(), strict=True)):
                self.logger.log_metrics(dict(zip(history, values, strict=True)), step)

    def finish(self, outcome: Outcome) -> None:
        """Show the result of a run."""
        if self.logger is not None:
            self.logger.show(lambda logger: self._result(logger, outcome))

    def close(self, code: int) -> None:
        """Let go of the logger; `code` is 0 where the run has ended well."""
        if self.logger is not None:
            self.logger.show(lambda logger: logger.finalize("failed" if code else "success"))

    def _result(self, logger: Logger, outcome: Outcome) -> None:
        logger.log_metrics({k: v for k, v in outcome.metrics.items() if isinstance(v, int | float)})
        logger.save()


class WandbTracker(Tracker):
    """Adds what W&B can show: summary, heat map, predictions with their images, the vector as an artifact."""

    def __init__(self, config: Config, run: Any) -> None:
        super().__init__(config, WandbLogger(experiment=run))
        self.run = run

    def close(self, code: int) -> None:
        # Not `with run`: on an error W&B would print a traceback over the one sentence that the user is owed.
        try:
            self.run.finish(exit_code=code)
        except Exception as error:
            _warn("wandb", error)

    def _result(self, logger: Logger, outcome: Outcome) -> None:
        import wandb

        self.run.summary.update(outcome.metrics)
        media: dict[str, Any] = {"predictions": self._table(outcome)}
        if outcome.bank is not None and outcome.bank.scores is not None:
            scores, locations = outcome.bank.scores.float().numpy(), outcome.bank.locations.numpy()
            media["location_scores"] = wandb.Image(location_map(scores, locations))
        self.run.log(media)
        vector = outcome.folder / "task_vector.safetensors"
        if vector.is_file():
            name = outcome.folder.name
            artifact = wandb.Artifact(f"task-vector-{name}", type="task_vector", metadata={"run": name})
            artifact.add_file(str(vector))
            self.run.log_artifact(artifact)

    def _table(self, outcome: Outcome) -> Any:
        """The first predictions, each with its query's own picture; a text among pictures has none."""
        import wandb

        shown = outcome.predictions[: self.config.tracker.images]
        pictures = {e.id: e.images for e in outcome.task.evaluation}
        own = [wandb.Image(pictures[p.id][-1]()) if pictures[p.id] else None for p in shown]
        rows: list[Any] = [[p.id, p.question, p.answers[0], p.prediction, p.correct] for p in shown]
        columns: list[str | int] = ["id", "question", "answer", "prediction", "correct"]
        if any(picture is not None for picture in own):
            columns, rows = [*columns, "image"], [[*row, image] for row, image in zip(rows, own, strict=True)]
        return wandb.Table(columns, rows)


@contextmanager
def tracked(config: Config, signature: str) -> Iterator[Tracker]:
    """The tracker that `config.tracker` names, closed at the end, so that jobs of one process stay apart."""
    tracker, code = _open(config, signature), 1
    try:
        yield tracker
        code = 0
    finally:
        tracker.close(code)


def check(config: Config) -> None:
    """Raise `StvError` for a tracker that would only fail after hours: W&B online without a login."""
    if (config.tracker.name, config.tracker.mode) == ("wandb", "online"):
        import wandb

        if not wandb.login(prompt=False):
            raise StvError(
                "tracker.mode=online needs a login; run `wandb login`, set WANDB_API_KEY, or use tracker.mode=offline."
            )


def _open(config: Config, signature: str) -> Tracker:
    try:
        if config.tracker.name == "wandb":
            return WandbTracker(config, _wandb_run(config, signature))
        return Tracker(config, _logger(config, signature))
    except StvError:
        raise
    except Exception as error:  # an unwritable home, a full disk, a service that does not start
        _warn(config.tracker.name, error)
        return Tracker(config)


def _warn(name: str, error: Exception) -> None:
    reason = str(error).strip().split("\n")[0]
    log.warning(
        "tracker=%s has failed (%s: %s); the run goes on without it and keeps its results.",
        name,
        type(error).__name__,
        reason,
    )


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
