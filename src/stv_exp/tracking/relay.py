"""The logger that stages are handed: it passes the values of each step on, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers import Logger

Values = dict[str, float]


class Relay(Logger):
    """Calls `pass_on(values, step)`; settings are shown for a run as a whole, not for a stage."""

    def __init__(self, name: str, pass_on: Callable[[Values, int], None]) -> None:
        super().__init__()
        self._name = name
        self.pass_on = pass_on

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> None:
        return None

    def log_metrics(self, metrics: Values, step: int | None = None) -> None:
        self.pass_on(metrics, step or 0)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: see the class."""
