"""What was computed lately, within a bound of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Protocol, TypeVar

import psutil
import torch
from cachetools import LRUCache


class Sized(Protocol):
    """A value that knows how much memory it takes."""

    @property
    def n_bytes(self) -> int: ...


V = TypeVar("V", bound=Sized)


class Recent(LRUCache[str, V]):
    """Values by key, at most `max_bytes`: the least recently used is dropped, one larger than that is not kept."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, attrgetter("n_bytes"))

    def keep(self, found: Mapping[str, V]) -> None:
        """Keep values just used, new and old ones."""
        self.update({key: value for key, value in found.items() if value.n_bytes <= self.maxsize})


def half_of_what_is_free(device: torch.device) -> int:
    """Bytes."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return free // 2
