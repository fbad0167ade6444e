"""What a setting may be: said beside its field in the schema, for its check, its help and its docs alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

from stv_exp.errors import StvError

MAX_INT = 2**31 - 1  # what C libraries (FAISS) take


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included unless `low` is to be exceeded."""

    low: float
    high: float = MAX_INT
    above: bool = False

    def allows(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)  # NaN fails either

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return f"{low} and at most {self.high}"


class OneOf:
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def allows(self, value: str) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Text:
    """Text that a pattern matches as a whole, described by `says`."""

    pattern: str
    says: str

    def allows(self, value: str) -> bool:
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.says


@dataclass(frozen=True)
class Texts:
    """A list of texts that each match the pattern."""

    pattern: str
    says: str

    def allows(self, values: Sequence[str]) -> bool:
        return all(re.fullmatch(self.pattern, value) for value in values)

    def __str__(self) -> str:
        return self.says


class Path(Text):
    """A path, whose `~` is expanded."""


Limit = Range | OneOf | Text | Texts
NAME = Text(
    r"[^./\\\s\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,99}", "a name without slashes, no dot first, at most 100 characters"
)
PATH = Path(r"[^\x00-\x1f\x7f]*", "a path without control characters")
FOLDER = Path(r"[^\x00-\x1f\x7f]+", "a path, not empty")

Count = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
Share = Annotated[float, Range(0, 1)]
Above0 = Annotated[float, Range(0, 100, above=True)]
Many = Annotated[int, Range(0, 2**62)]


def limits(schema: type, prefix: str = "") -> Iterator[tuple[str, Limit]]:
    """The dotted key of every setting that has a limit, with it."""
    hints = get_type_hints(schema, include_extras=True)
    for field in fields(schema):
        hint, key = hints[field.name], prefix + field.name
        if is_dataclass(hint):
            yield from limits(hint, f"{key}.")  # type: ignore[arg-type]
        yield from ((key, found) for found in getattr(hint, "__metadata__", ()) if isinstance(found, Limit))


def check_limit(key: str, value: Any, limit: Limit) -> None:
    """Raise `StvError` for a value that a setting does not take."""
    if not limit.allows(value):
        shown = repr(value) if value == "" or not str(value).isprintable() else value
        raise StvError(f"{key}={shown} is not possible; it must be {limit}.")
