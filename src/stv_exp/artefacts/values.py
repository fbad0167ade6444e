"""Values that come from outside: what type they have, and how they are shown in one line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

DEEPEST = 200  # of lists and dicts within each other: deeper ones meet Python's limit on the way out again
_LONGEST = 200  # characters of a value that is shown


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has the type of an annotation; a whole number is a float too, True and False are no numbers."""
    kind, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if kind in (Union, UnionType):
        return any(fits(value, part) for part in inner)
    if kind is list:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if kind is dict:
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return value is None if hint is type(None) else isinstance(value, hint)


def named(hint: Any) -> str:
    """An annotation as a reader knows it: `dict[str, int]`, `str`."""
    return getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint).replace("typing.", "")


def too_deep(value: Any) -> bool:
    """Whether more than `DEEPEST` lists and dicts stand within each other, found without recursion."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list | tuple)]
        level = [item for items in inner for item in items]
    return bool(level)


def sizes(shape: Mapping[str, int]) -> str:
    """What a vector or an edit has to fit, in words: `n_layers 3, n_heads 6, head_dim 20`."""
    return one_line(", ".join(f"{name} {size}" for name, size in shape.items()))


def one_line(value: Any) -> str:
    """A value as one short line without control characters, half characters and invisible ones."""
    text = str(value)[: 10 * _LONGEST].encode(errors="replace").decode()
    kept = "".join(" " if c.isspace() else "" if unicodedata.category(c).startswith("C") else c for c in text)
    line = re.sub(" +", " ", kept).strip()
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
