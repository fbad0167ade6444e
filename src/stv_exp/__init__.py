"""Many-shot multimodal in-context learning without paying for the shots."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stv_exp.cli import configure as configure
    from stv_exp.data.loader import load_task as load_task
    from stv_exp.library import build_bank as build_bank
    from stv_exp.library import fit as fit
    from stv_exp.library import load_backbone as load_backbone
    from stv_exp.library import run as run
    from stv_exp.library import search as search
    from stv_exp.report.frame import predictions as predictions
    from stv_exp.report.frame import runs as runs
    from stv_exp.stages.evaluate import evaluate as evaluate
    from stv_exp.stages.scan import scan as scan
    from stv_exp.task_vector import TaskVector as TaskVector
    from stv_exp.trained_edit import TrainedEdit as TrainedEdit

_FROM = {
    "TaskVector": "stv_exp.task_vector",
    "TrainedEdit": "stv_exp.trained_edit",
    "build_bank": "stv_exp.library",
    "configure": "stv_exp.cli",
    "evaluate": "stv_exp.stages.evaluate",
    "fit": "stv_exp.library",
    "load_backbone": "stv_exp.library",
    "load_task": "stv_exp.data.loader",
    "predictions": "stv_exp.report.frame",
    "run": "stv_exp.library",
    "runs": "stv_exp.report.frame",
    "scan": "stv_exp.stages.scan",
    "search": "stv_exp.library",
}
__all__ = ["__version__", *_FROM]
__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    """Import torch or pandas only for those who ask for what needs it, so that `--help` answers at once."""
    if name in _FROM:
        return getattr(import_module(_FROM[name]), name)
    raise AttributeError(f"module 'stv_exp' has no attribute {name!r}")
