"""Whether the hub can be reached, asked briefly: its clients would try for half a minute, file by file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_SECONDS = 5


def hub_address() -> str:
    """The hub's address. HF_ENDPOINT is read now: the client reads it when transformers is imported."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def hub_answers() -> bool:
    """Whether anything answers at the hub's address (HF_ENDPOINT); not where HF_HUB_OFFLINE is set."""
    try:
        ask_hub()
        return True
    except Exception:  # of the HTTP library, and which one that is depends on the client's version
        return False


def ask_hub() -> None:
    """Raise the client's own error where nothing answers at the hub's address, or where HF_HUB_OFFLINE is set."""
    _ask(hub_address())


@contextmanager
def cache_if_offline() -> Iterator[None]:
    """Where the hub does not answer, its clients look into their caches only while the body runs."""
    from huggingface_hub import constants

    kept: list[Any] = [part for part in (constants, sys.modules.get("datasets.config")) if part is not None]
    before = [part.HF_HUB_OFFLINE for part in kept]
    try:
        for part in kept if not hub_answers() else []:
            part.HF_HUB_OFFLINE = True
        yield
    finally:
        for part, value in zip(kept, before, strict=True):
            part.HF_HUB_OFFLINE = value


@cache
def _ask(address: str) -> bool:
    """True; raises where nothing answers, so that it is asked again."""
    from huggingface_hub import get_session

    get_session().head(address, timeout=_SECONDS)
    return True
