"""What a tracker is: something that a run can be shown in."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Protocol

from stv_exp.errors import StvError
from stv_exp.tracker_config import TrackerConfig
from stv_exp.tracking.exhibit import Exhibit
from stv_exp.tracking.pictures import Pictures


class View(Protocol):
    """Opened with a run's settings, it follows the curve and ends with the result."""

    def curve(self, values: Mapping[str, float], step: int) -> None:
        """The values of one step of the search."""

    def result(self, exhibit: Exhibit, pictures: Pictures) -> None:
        """Everything that a finished run has to show beside its curve."""

    def close(self, code: int) -> None:
        """Write or send what is left; `code` is 0 where the run has ended well."""


def open_view(exhibit: Exhibit, settings: TrackerConfig) -> View | None:
    """The view that `settings` name; whatever a library of a tracker raises."""
    if settings.name == "wandb":
        from stv_exp.tracking.wandb_view import WandbView

        return WandbView(exhibit, settings)
    if settings.name == "none":
        return None
    from stv_exp.tracking.logger_view import CsvView, TensorBoardView

    return CsvView(exhibit) if settings.name == "csv" else TensorBoardView(exhibit)


def check(settings: TrackerConfig) -> None:
    """Raise `StvError` for a tracker that would only fail after hours: without its package, or without a login."""
    if settings.name == "tensorboard" and not (find_spec("tensorboard") or find_spec("tensorboardX")):
        raise StvError("tracker=tensorboard needs its package; run: pip install 'stv_exp[tensorboard]'.")
    if (settings.name, settings.mode) == ("wandb", "online"):
        from stv_exp.tracking.login import check_login

        check_login()


def show(view: View, exhibit: Exhibit, pictures: Pictures, seen: set[int] | frozenset[int] = frozenset()) -> None:
    """A finished run, whole; steps of its curve that the view has `seen` live are not told again."""
    for step, values in enumerate(exhibit.curve):
        if step not in seen:
            view.curve(values, step)
    view.result(exhibit, pictures)
