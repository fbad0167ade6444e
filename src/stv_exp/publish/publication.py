"""Finished runs on their way to W&B, each one once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from stv_exp.disk.files import damaged
from stv_exp.disk.locks import locked
from stv_exp.disk.study import Study
from stv_exp.errors import StvError
from stv_exp.report.damage import DamagedError
from stv_exp.report.folders import entries, nothing, run_folders
from stv_exp.report.states import read_status, unfinished
from stv_exp.report.text import brief, listed
from stv_exp.tracker_config import TrackerConfig
from stv_exp.tracking import pictures
from stv_exp.tracking.exhibit import Exhibit
from stv_exp.tracking.sent import is_sent
from stv_exp.tracking.view import open_view, show


def finished(outputs: Path, study: str | None, notes: list[str]) -> list[Exhibit]:
    """The runs that are done, of a study or all; `notes` gains a sentence on each that is left out.

    Raises `StvError` where there is none, or no such study.
    """
    _check_study(outputs, study)
    found = [run for folder in run_folders(outputs, study, notes) if (run := _finished(folder, study, notes))]
    if not found:
        raise nothing(outputs, study)
    return found


def send(exhibit: Exhibit, settings: TrackerConfig) -> bool:
    """Show a finished run where `settings` say; False where it is there already. Raises what W&B raises."""
    with locked(exhibit.folder):  # of two processes one sends it
        if is_sent(exhibit.folder, settings):
            return False
        view, code = open_view(exhibit, settings), 1
        assert view is not None  # "none" shows nothing, and sends nothing
        try:
            show(view, exhibit, pictures.of_run(exhibit) if settings.images else pictures.none)
            code = 0
        finally:
            view.close(code)
    return True


def saved(runs: Sequence[Exhibit], study: str | None, settings: TrackerConfig) -> list[str]:
    """Addresses of the view and the report of a study, saved anew."""
    from stv_exp.tracking.board import save

    with refused("the view and the report"):
        return save(runs, study, settings)


def check_board(settings: TrackerConfig, wanted: bool) -> None:
    """Raise `StvError` where a view and a report are `wanted` and cannot be saved."""
    if not wanted:
        return
    if find_spec("wandb_workspaces") is None:
        raise StvError("--workspace needs its package; run: pip install 'stv_exp[workspace]'.")
    if settings.mode != "online":
        raise StvError("--workspace does not go with --mode offline: a saved view and a report are kept by W&B alone.")


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn what W&B raises, of many kinds, into one sentence."""
    try:
        yield
    except (StvError, OSError):
        raise
    except Exception as error:
        reason = brief(str(error).strip().split("\n")[0].rstrip("."))
        raise StvError(
            f"W&B has not taken {what} ({type(error).__name__}: {reason}); run the same command again, it goes on with "
            "what is not there yet."
        ) from error


def _finished(folder: Path, study: str | None, notes: list[str]) -> Exhibit | None:
    """The run in a folder; what is not done, damaged or no run of a method is left out."""
    try:
        status = read_status(folder)
        if (sentence := unfinished(folder, status)) is not None:
            notes.append(sentence)
            return None
        if "files" in status and (found := damaged(folder, status)):
            raise DamagedError(found)
        exhibit = Exhibit.read(folder, study)
    except DamagedError as error:
        notes.append(f"Run {brief(folder.name)} is damaged ({error}): it is left out.")
        return None
    return exhibit if "accuracy" in exhibit.metrics else None


def _check_study(outputs: Path, study: str | None) -> None:
    if study is None or Study(outputs, study).folder.is_dir():
        return
    known = [brief(path.name) for path in entries(outputs / "sweeps") if path.is_dir()]
    there = f"its studies are {listed(known)}" if known else "it has none yet"
    raise StvError(f"{brief(outputs)} has no study {brief(study)}; {there}.")
