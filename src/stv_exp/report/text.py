"""Text that others have chosen (names, settings, errors), made safe to show in a terminal, a table or a picture."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence

from stv_exp.errors import printable

_LONGEST = 40  # characters of a setting's value
_LONGEST_NAME = 100
_NO_NAME = re.compile(r"[^\w.=,-]", re.ASCII)
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)", re.ASCII)
_MARKDOWN = re.compile(r"[\\|`*]|<(?=\S)|(?<=\])\(")


def brief(text: object, longest: int = 300) -> str:
    """An error's text as a part of a sentence."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def shown(value: object) -> str:
    """A setting's value in a label: no two values look the same."""
    text = value if isinstance(value, str) and _is_plain(value) else _as_json(value)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}…{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def file_name(text: str) -> str:
    """A name of a file or folder that tells the text: two texts never have the same."""
    name = _NO_NAME.sub("_", text)
    if name == text and len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:6]}"


def markdown(text: str) -> str:
    """The same text as a cell of a Markdown table."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


def listed(names: Sequence[str], most: int = 6) -> str:
    """`a, b and 3 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def in_size(value: object) -> tuple[bool, float, list[tuple[float, str]]]:
    """What to sort values by: numbers by size, then texts by name, in which numbers count by size too."""
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    return (False, number, []) if number == number else (True, 0.0, [_word(word) for word in _NUMBER.split(str(value))])


def _word(text: str) -> tuple[float, str]:
    return (float(text), "") if _NUMBER.fullmatch(text) else (math.inf, text)


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
