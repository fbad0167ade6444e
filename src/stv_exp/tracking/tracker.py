"""Shows a run while it is made. What fails costs a warning and the rest of the view, never the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stv_exp.tracker_config import TrackerConfig
from stv_exp.tracking.exhibit import Exhibit
from stv_exp.tracking.pictures import Pictures
from stv_exp.tracking.view import View, open_view, show

if TYPE_CHECKING:
    from stv_exp.tracking.relay import Relay

log = logging.getLogger(__name__)


class Tracker:
    """Follows the run in `folder` in the view that `settings` name, until that fails once."""

    def __init__(self, folder: Path, settings: TrackerConfig) -> None:
        self.folder = folder
        self.settings = settings
        self._view: View | None = None
        self._seen: set[int] = set()

    @property
    def logger(self) -> Relay | None:
        """For a stage: what it logs is the curve."""
        if self._view is None:
            return None
        from stv_exp.tracking.relay import Relay

        return Relay(self.settings.name, self._step)

    def start(self) -> None:
        """Open the view, once the run's settings are in its folder."""
        with self._guarded():
            self._view = open_view(Exhibit.read(self.folder), self.settings)

    def finish(self, pictures: Pictures) -> None:
        """Show the result, once it is in the run's folder."""
        self._tell(lambda view: show(view, Exhibit.read(self.folder), pictures, self._seen))

    def close(self, code: int) -> None:
        """Let go of the view; `code` is 0 where the run has ended well."""
        self._tell(lambda view: view.close(code))
        self._view = None

    def _step(self, values: dict[str, float], step: int) -> None:
        self._seen.add(step)
        self._tell(lambda view: view.curve(values, step))

    def _tell(self, what: Callable[[View], None]) -> None:
        if self._view is not None:
            with self._guarded():
                what(self._view)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # an unwritable home, a full disk, a service that does not start
            warn(self.settings.name, error)
            view, self._view = self._view, None
            with suppress(Exception):  # it is told once
                if view is not None:
                    view.close(1)


@contextmanager
def tracked(folder: Path, settings: TrackerConfig) -> Iterator[Tracker]:
    """A tracker of the run in `folder`, closed at the end, so that jobs of one process stay apart."""
    tracker, code = Tracker(folder, settings), 1
    try:
        yield tracker
        code = 0
    finally:
        tracker.close(code)


def warn(name: str, error: Exception) -> None:
    """Say once what a tracker has failed at."""
    reason = str(error).strip().split("\n")[0]
    log.warning(
        "tracker=%s has failed (%s: %s); the run goes on without it and keeps its results.",
        name,
        type(error).__name__,
        reason,
    )
