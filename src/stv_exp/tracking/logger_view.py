"""A run in the files of Lightning's loggers: hyperparameters, curves and, at the last step, the final numbers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from stv_exp.report.damage import flat
from stv_exp.tracking.exhibit import Exhibit
from stv_exp.tracking.pictures import Pictures


class LoggerView:
    """What both have in common: the curve and the end."""

    def __init__(self, logger: CSVLogger | TensorBoardLogger) -> None:
        self.logger = logger
        self.last = 0

    def curve(self, values: Mapping[str, float], step: int) -> None:
        """The values of one step of the search."""
        self.last = max(step, self.last)
        self.logger.log_metrics({**values}, step)

    def close(self, code: int) -> None:
        """Write what is left; `code` is 0 where the run has ended well."""
        self.logger.finalize("failed" if code else "success")


class CsvView(LoggerView):
    """`csv/<signature>/`: `metrics.csv` and `hparams.yaml`."""

    def __init__(self, exhibit: Exhibit) -> None:
        super().__init__(CSVLogger(_cleared(exhibit, "csv"), name="csv", version=exhibit.signature))

    def result(self, exhibit: Exhibit, pictures: Pictures) -> None:
        """Settings and final numbers; a table of numbers shows no pictures."""
        self.logger.log_hyperparams(flat(exhibit.config, "config"))
        self.logger.log_metrics({**exhibit.numbers}, self.last)


class TensorBoardView(LoggerView):
    """`tensorboard/<signature>/`; the final numbers are beside the settings too, where TensorBoard compares runs."""

    def __init__(self, exhibit: Exhibit) -> None:
        outputs = _cleared(exhibit, "tensorboard")
        self.board = TensorBoardLogger(outputs, name="tensorboard", version=exhibit.signature)
        super().__init__(self.board)

    def result(self, exhibit: Exhibit, pictures: Pictures) -> None:
        """Settings and final numbers; a table of numbers shows no pictures."""
        self.board.log_hyperparams(flat(exhibit.config, "config"), exhibit.numbers, self.last)


def _cleared(exhibit: Exhibit, name: str) -> Path:
    """The outputs folder, without the files of an earlier attempt: the curve comes whole."""
    outputs: Path = exhibit.folder.parents[1]
    shutil.rmtree(outputs / name / exhibit.signature, ignore_errors=True)
    return outputs
