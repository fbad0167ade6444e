"""Many-shot multimodal in-context learning without paying for the shots."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stv_exp.report.frame import predictions as predictions
    from stv_exp.report.frame import runs as runs
    from stv_exp.task_vector import TaskVector as TaskVector

__all__ = ["TaskVector", "__version__", "predictions", "runs"]
__version__ = "0.2.0"
_WHERE = {"TaskVector": "task_vector", "predictions": "report.frame", "runs": "report.frame"}


def __getattr__(name: str) -> object:
    """Import torch or pandas only for those who ask for what needs it, so that `--help` answers at once."""
    if name in _WHERE:
        return getattr(import_module(f"stv_exp.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'stv_exp' has no attribute {name!r}")
