"""The most memory that a stretch of work has held: the accelerator's, else this process's."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch


def forget_peak() -> None:
    """Begin anew; a process without an accelerator can only on Linux, and elsewhere keeps the peak of all before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Bytes held at most since `forget_peak`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with suppress(OSError):
        return held("VmHWM")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def held(name: str) -> int:
    """Bytes of this process by a name of /proc: VmRSS now, VmHWM at the peak; raises `OSError` where there is none."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
