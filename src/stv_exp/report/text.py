"""Text that others have chosen (names, settings, errors), made safe to show in a terminal, a table or a picture."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

_LONGEST = 40  # characters of a setting's value
_MARKDOWN = re.compile(r"[\\|`*]|<(?=\S)|(?<=\])\(")


def printable(text: str) -> str:
    """The same without what a terminal obeys: control characters and the like are written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: object, longest: int = 300) -> str:
    """An error's text as a part of a sentence."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def shown(value: object) -> str:
    """A setting's value in a label: no two values look the same."""
    text = value if isinstance(value, str) and _is_plain(value) else _as_json(value)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}…{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def markdown(text: str) -> str:
    """The same text as a cell of a Markdown table."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


def listed(names: Sequence[str], most: int = 6) -> str:
    """`a, b and 3 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _is_plain(text: str) -> bool:
    """Whether a text needs no quotes, as it is no number, none of Python's constants, and of one printable word."""
    if not text.isprintable() or not text or " " in text or '"' in text or text in ("None", "True", "False"):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def _as_json(value: object) -> str:
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if text.isprintable() else json.dumps(value, sort_keys=True)
