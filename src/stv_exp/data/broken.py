"""Broken examples: refused at the first, left out where `dataset.skip_broken` says so, or listed for `check_data`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from stv_exp.config import DatasetConfig
from stv_exp.errors import StvError

T = TypeVar("T")
R = TypeVar("R")
NAMED = 10  # sentences in a warning

log = logging.getLogger(__name__)
_listing: ContextVar[list[str] | None] = ContextVar("listing", default=None)


@contextmanager
def listed() -> Iterator[list[str]]:
    """In the block broken entries are left out, and the list has a sentence for each."""
    sentences: list[str] = []
    token = _listing.set(sentences)
    try:
        yield sentences
    finally:
        _listing.reset(token)


def sound(
    items: Iterable[T], make: Callable[[T], R], key: Callable[[R], Hashable], source: object, config: DatasetConfig
) -> list[R]:
    """What `make` makes of each item; one that it refuses, or whose key was there before, is broken.

    Raises the first `StvError`, unless broken ones are left out or listed; `source` is the file they come from.
    """
    made: dict[Hashable, R] = {}
    sentences: list[str] = []
    for item in items:
        try:
            result = make(item)
            if (name := key(result)) in made:
                raise StvError(f"{source} has the id {name!r} twice; remove one of the two or download it again.")
            made[name] = result
        except StvError as error:
            if not config.skip_broken and _listing.get() is None:
                raise
            sentences.append(str(error))
    left_out(sentences, len(made) + len(sentences))
    return list(made.values())


def left_out(sentences: Sequence[str], total: int) -> None:
    """List or log what was left out of `total` examples, the first by their sentences."""
    if (listing := _listing.get()) is not None:
        listing += [sentence for sentence in sentences if sentence not in listing]
    elif sentences:
        more = len(sentences) - NAMED
        shown = [*sentences[:NAMED], *([f"and {more} more; experiment=check_data lists all."] if more > 0 else [])]
        log.warning("Left out %d of %d examples:\n  %s", len(sentences), total, "\n  ".join(shown))
