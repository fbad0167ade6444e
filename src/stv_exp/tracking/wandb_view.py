"""A run in Weights & Biases."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import wandb
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stv_exp.report.pictures.sensitivity import location_map
from stv_exp.tracker_config import TrackerConfig
from stv_exp.tracking import artifacts, title
from stv_exp.tracking.exhibit import Exhibit
from stv_exp.tracking.pictures import Pictures
from stv_exp.tracking.sent import note_sent

log = logging.getLogger(__name__)
_STEP = "step"  # of the search: W&B's own counts what was logged
_COLUMNS = ("id", "question", "answers", "prediction", "score", "demonstrations", "picture")


class WandbView:
    """Opens with what is known before a run's first stage; `result` adds the rest. It is sent once it is closed."""

    def __init__(self, exhibit: Exhibit, settings: TrackerConfig) -> None:
        self.folder = exhibit.folder
        self.settings = settings
        self.outputs = exhibit.folder.parents[1]
        self._curves: set[str] = set()
        self._is_whole = False
        self.run = _opened(exhibit, settings, self.outputs)
        self.run.define_metric(_STEP, hidden=True)
        if not self.run.offline:
            log.info("W&B shows the run at %s", self.run.url)

    def curve(self, values: Mapping[str, float], step: int) -> None:
        """The values of one step of the search."""
        for name in values.keys() - self._curves:
            self.run.define_metric(name, step_metric=_STEP, summary="last,max")
            self._curves.add(name)
        self.run.log({**values, _STEP: step})

    def result(self, exhibit: Exhibit, pictures: Pictures) -> None:
        """Everything that a finished run has to show beside its curve."""
        self.run.config.update(exhibit.config, allow_val_change=True)
        self.run.summary.update(exhibit.summary)
        ranking = exhibit.ranking
        tables = {"predictions": _predictions(exhibit, pictures, self.settings.images)}
        if ranking is not None:
            self.run.log({"location_scores": _drawn(location_map(ranking.scores, ranking.locations))})
            tables["ranking"] = wandb.Table(ranking.columns, [*ranking.rows(exhibit.chosen)])
        with artifacts.staged_in(self.outputs / "wandb" / "data"):
            self._log_tables(exhibit.signature, tables)
            for stage in artifacts.stages(exhibit):
                self._use(stage)
            if vector := artifacts.vector(exhibit):
                self.run.log_artifact(self._ready(vector))
        self._is_whole = True

    def close(self, code: int) -> None:
        """Send what is left; `code` is 0 where the run has ended well."""
        # Not `with run`: on an error W&B would print a traceback over the one sentence that the user is owed.
        self.run.finish(exit_code=code)
        if self._is_whole and code == 0:
            note_sent(self.folder, self.settings, id=self.run.id, **self._place())

    def _log_tables(self, signature: str, tables: Mapping[str, wandb.Table]) -> None:
        """Tables in an artifact of ours: of that which `run.log` makes, the paths cannot be made portable."""
        holder = wandb.Artifact(f"tables-{signature}", "tables")
        for key, table in tables.items():
            holder.add(table, key)
        self.run.log_artifact(self._ready(holder))
        for key, table in tables.items():
            table.bind_to_run(self.run, key, self.run.step)
        self.run.log(dict(tables))

    def _place(self) -> dict[str, str]:
        if self.run.offline:
            return {"folder": f"wandb/{Path(self.run.settings.sync_dir).name}"}
        return {"url": str(self.run.url)}

    def _use(self, stage: wandb.Artifact) -> None:
        """A stage is an input, which W&B takes online only; offline it is logged, and the config holds the graph."""
        if self.run.offline:
            self.run.log_artifact(self._ready(stage))
        else:
            self.run.use_artifact(stage)

    def _ready(self, artifact: wandb.Artifact) -> wandb.Artifact:
        return artifacts.make_portable(artifact, self.outputs) if self.run.offline else artifact


def _opened(exhibit: Exhibit, settings: TrackerConfig, outputs: Path) -> Any:
    quiet = wandb.Settings(console="off", x_disable_stats=True, silent=True)
    # Offline runs cannot be resumed: each attempt at a signature is a W&B run of its own.
    attempt = os.urandom(3).hex()
    return wandb.init(
        project=settings.project,
        entity=settings.entity or None,
        mode=settings.mode,  # type: ignore[arg-type]
        dir=outputs.absolute(),  # W&B's own process may stand elsewhere
        id=f"{exhibit.signature}-{attempt}",
        name=title.name(exhibit),
        notes=title.command(exhibit),
        tags=title.tags(exhibit, settings.tags),
        group=exhibit.study,
        job_type=str(exhibit.values.get("method.name")),
        config=exhibit.config,
        reinit="finish_previous",
        settings=quiet,
    )


def _predictions(exhibit: Exhibit, pictures: Pictures, images: int) -> wandb.Table:
    """All of them, the first with their pictures; a text among pictures has none."""
    rows: list[Any] = []
    for i, line in enumerate(exhibit.predictions):
        picture = pictures(line["id"]) if i < images else None
        shown = wandb.Image(picture) if picture is not None else None
        used = ", ".join(line.get("demonstration_ids", []))
        texts = [line["id"], line["question"], " | ".join(line["answers"]), line["prediction"]]
        rows.append([*texts, float(line["correct"]), used, shown])
    columns: list[str | int] = list(_COLUMNS)
    if all(row[-1] is None for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return wandb.Table(columns, rows)


def _drawn(figure: Figure) -> wandb.Image:
    """As pixels: W&B itself takes a figure of pyplot only."""
    canvas = cast(FigureCanvasAgg, figure.canvas)
    canvas.draw()
    return wandb.Image(np.asarray(canvas.buffer_rgba()))
