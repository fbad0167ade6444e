"""What can be wrong with the files of a run folder, whoever has written or cut them."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stv_exp.report.text import brief

Check = Callable[[object], bool]
_LARGEST = 2**62  # what a table's column of whole numbers holds
_DEEPEST = 20


class DamagedError(Exception):
    """A file of a run is not what a run writes; the text says which one and what is wrong."""


def is_number(value: object) -> bool:
    """A finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def is_whole(value: object) -> bool:
    return isinstance(value, int) and is_number(value)


def is_share(value: object) -> bool:
    """A score: a mean of ones may be more than 1 by a rounding."""
    return is_number(value) and 0 <= value <= 1 + 1e-9  # type: ignore[operator]


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def is_setting(value: object) -> bool:
    """What settings are made of: plain values and lists of them."""
    return all(
        v is None or isinstance(v, str | bool | int | float) for v in (value if isinstance(value, list) else [value])
    )


def is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def require(where: str, values: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """Raise `DamagedError` for the first value that is missing or of another kind."""
    for key, check in checks.items():
        if not check(values.get(key)):
            raise DamagedError(f"{where} has no valid {brief(key, 60)}")


def file_text(path: Path) -> str:
    """The text of a file; raises `DamagedError` where there is none."""
    check_file(path)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DamagedError(f"{path.name} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DamagedError(f"{path.name} is no text") from error


def check_file(path: Path) -> None:
    """Raise `DamagedError` for what is missing or no file: to open a pipe would wait for ever."""
    name = brief(path.name, 60)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise DamagedError(f"{name} is missing") from error
    except (OSError, ValueError) as error:
        raise DamagedError(f"{name} cannot be read ({getattr(error, 'strerror', error)})") from error
    if not stat.S_ISREG(mode):
        raise DamagedError(f"{name} is no file")


def json_object(text: str, where: str) -> dict[str, Any]:
    """The JSON object that `text` is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{where} is no JSON") from error
    if not isinstance(value, dict):
        raise DamagedError(f"{where} is no JSON object")
    return value


def flat(nested: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """The same with dotted keys, such as `seconds.total`."""
    if prefix.count(".") > _DEEPEST:
        raise DamagedError(f"{where} is nested too deep")
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, where, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
