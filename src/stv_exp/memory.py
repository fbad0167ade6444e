"""The most memory that a stretch of work has held: the accelerator's that it runs on, else this process's."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch


def forget_peak(device: torch.device) -> None:
    """Begin anew; for the CPU this works on Linux alone, and elsewhere the peak is that of all before."""
    if device.type == "cuda":
        for number in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(number)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device) -> int:
    """Bytes held at most since `forget_peak`, on all accelerators where `device` is one: a model may lie on several."""
    if device.type == "cuda":
        return sum(torch.cuda.max_memory_allocated(number) for number in range(torch.cuda.device_count()))
    with suppress(OSError):
        return held("VmHWM")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def held(name: str) -> int:
    """Bytes of this process by a name of /proc: VmRSS now, VmHWM at the peak; raises `OSError` where there is none."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
