"""What was computed lately, within a bound of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

import psutil
import torch


class Sized(Protocol):
    """A value that knows how much memory it takes."""

    @property
    def n_bytes(self) -> int: ...


V = TypeVar("V", bound=Sized)


class Recent(Generic[V]):
    """Values by key, at most `max_bytes` of them; the least recently used is dropped."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._kept: OrderedDict[str, V] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def __getitem__(self, key: str) -> V:
        return self._kept[key]

    def keep(self, found: Mapping[str, V]) -> None:
        """Keep values just used, new and old ones."""
        for key, value in found.items():
            self.n_bytes += 0 if key in self._kept else value.n_bytes
            self._kept[key] = value
            self._kept.move_to_end(key)
        while self.n_bytes > self.max_bytes:
            self.n_bytes -= self._kept.popitem(last=False)[1].n_bytes

    def forget(self) -> None:
        """Drop everything."""
        self._kept.clear()
        self.n_bytes = 0


def half_of_what_is_free(device: torch.device) -> int:
    """Bytes."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return free // 2
