"""A run in the files of Lightning's loggers: hyperparameters, curves and, at the last step, the final numbers."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from stv_exp.report.damage import flat
from stv_exp.tracking.exhibit import Exhibit
from stv_exp.tracking.pictures import Pictures


class CsvView:
    """`csv/<signature>/`: `metrics.csv` and `hparams.yaml`."""

    def __init__(self, exhibit: Exhibit) -> None:
        self.logger = CSVLogger(exhibit.folder.parents[1], name="csv", version=exhibit.signature)
        self._last = 0

    def curve(self, values: Mapping[str, float], step: int) -> None:
        """The values of one step of the search."""
        self._last = max(step, self._last)
        self.logger.log_metrics({**values}, step)

    def result(self, exhibit: Exhibit, pictures: Pictures) -> None:
        """The final numbers; a file of numbers shows no pictures."""
        self.logger.log_hyperparams(flat(exhibit.config, "config"))
        self.logger.log_metrics({**exhibit.numbers}, self._last)

    def close(self, code: int) -> None:
        """Write what is left; `code` is 0 where the run has ended well."""
        self.logger.finalize("failed" if code else "success")


class TensorBoardView:
    """`tensorboard/<signature>/`: the numbers stand among the hyperparameters too, where TensorBoard compares runs."""

    def __init__(self, exhibit: Exhibit) -> None:
        self.logger = TensorBoardLogger(exhibit.folder.parents[1], name="tensorboard", version=exhibit.signature)
        self._last = 0

    def curve(self, values: Mapping[str, float], step: int) -> None:
        """The values of one step of the search."""
        self._last = max(step, self._last)
        self.logger.log_metrics({**values}, step)

    def result(self, exhibit: Exhibit, pictures: Pictures) -> None:
        """Hyperparameters and final numbers."""
        self.logger.log_hyperparams(flat(exhibit.config, "config"), exhibit.numbers, self._last)

    def close(self, code: int) -> None:
        """Write what is left; `code` is 0 where the run has ended well."""
        self.logger.finalize("failed" if code else "success")
