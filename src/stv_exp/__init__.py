"""Many-shot multimodal in-context learning without paying for the shots."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stv_exp.task_vector import TaskVector as TaskVector

__all__ = ["TaskVector", "__version__"]
__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    """Import torch only for those who ask for a task vector, so that `--help` answers at once."""
    if name == "TaskVector":
        from stv_exp.task_vector import TaskVector

        return TaskVector
    raise AttributeError(f"module 'stv_exp' has no attribute {name!r}")
