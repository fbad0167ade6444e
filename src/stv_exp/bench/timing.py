"""Times and memory. These machines are noisy: what is compared is measured in turns, and ratios are of medians."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

import torch

from stv_exp import memory


@dataclass(frozen=True)
class Figure:
    """A measured ratio and what it should be: at least or at most `aim`, None for one without an aim."""

    value: float
    aim: float | None = None
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        if self.aim is None:
            return None
        return self.value >= self.aim if self.at_least else self.value <= self.aim


@dataclass(frozen=True)
class Measurement:
    """One benchmark's figures by name, and the raw seconds (or bytes) that they are made of."""

    figures: Mapping[str, Figure]
    seconds: Mapping[str, float]
    n_bytes: Mapping[str, int] = field(default_factory=dict)


def in_turns(variants: Mapping[str, Callable[[], object]], rounds: int, warm_up: bool = True) -> dict[str, float]:
    """Median seconds of each variant over `rounds` rounds of all; one round more warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + warm_up):
        for name, run in variants.items():
            start = now()
            run()
            if turn >= warm_up:
                seconds[name].append(now() - start)
    return {name: median(values) for name, values in seconds.items()}


def in_blocks(block: Callable[[int], dict[str, float]], rounds: int) -> dict[str, float]:
    """Medians of three measurements of all that is compared, which share `rounds`.

    A machine that slows down meanwhile does so for all of it.
    """
    blocks = [block(max(1, rounds // 3)) for _ in range(3)]
    return {name: median(found[name] for found in blocks) for name in blocks[0]}


def now() -> float:
    """Seconds, once the accelerator has done what it was asked to."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Memory that `run` takes at its peak beyond what is held before: the accelerator's, or (Linux) the process's."""
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
    elif sys.platform.startswith("linux"):
        ctypes.CDLL(None).malloc_trim(0)  # else memory freed before would hide what is taken now
        before = memory.held("VmRSS")
    else:
        return 0
    memory.forget_peak(device)
    run()
    return memory.peak(device) - before
