"""One entry of a file from outside: each value is checked as it is read, and refused by file, entry and key."""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stv_exp.errors import StvError

_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character: JSON can write it, UTF-8 cannot
ADVICE = "correct it or set dataset.skip_broken=true"


@dataclass(frozen=True, slots=True)
class Entry:
    """`values` of an object in a file; `where` begins the sentence that refuses one of them."""

    where: str
    values: Mapping[str, Any]

    @classmethod
    def of(cls, row: Any, number: int, path: Path, word: str = "Entry") -> Entry:
        """Entry `number` of `path`, where `row` is an object."""
        where = f"{word} {number} of {path}"
        if not isinstance(row, dict):
            raise StvError(f"{where} is {reprlib.repr(row)}, which is no object; {ADVICE}.")
        return cls(where, row)

    def text(self, key: str) -> str:
        """A text that is not blank and can be written to any file."""
        value = self._value(key)
        if not isinstance(value, str):
            raise self.wrong(key, "which is no text")
        if not value.strip():
            raise self.wrong(key, "which is blank")
        return self._whole(value, key)

    def path(self, key: str) -> str:
        """A path that stays below the folder it is relative to."""
        value = self.text(key)
        if complaint := leaves(value):
            raise self.wrong(key, complaint)
        return value

    def identity(self, key: str) -> int | str:
        """A whole number or a text."""
        value = self._value(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else self.text(key)

    def number(self, key: str) -> int:
        """A whole number from 0."""
        value = self._value(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.wrong(key, "which is no whole number from 0")
        return value

    def answers(self, key: str) -> list[str]:
        """Texts or numbers, one or a list of them, also as objects with an `answer`; one at least is not blank."""
        value = self._value(key)
        answers = value if isinstance(value, list) else [value]
        try:
            together = "".join(answers)  # most are texts: one look at all ten, as there may be a million
        except TypeError:
            answers = [self._answer(answer, key) for answer in answers]
            together = "".join(answers)
        if not together.strip():
            raise self.wrong(key, "which holds no answer")
        self._whole(together, key)
        return answers

    def wrong(self, key: str, complaint: str) -> StvError:
        """The refusal of a value."""
        return StvError(f"{self.where} has {_shown(self.values[key])} under {key!r}, {complaint}; {ADVICE}.")

    def _value(self, key: str) -> Any:
        if key not in self.values:
            raise StvError(f"{self.where} has no {key!r}; {ADVICE}.")
        return self.values[key]

    def _answer(self, answer: Any, key: str) -> str:
        if isinstance(answer, dict):
            answer = answer.get("answer")
        if isinstance(answer, str):
            return answer
        if isinstance(answer, bool) or not isinstance(answer, int | float) or not math.isfinite(answer):
            raise self.wrong(key, "which is no text, number or list of them")
        return str(answer)

    def _whole(self, text: str, key: str) -> str:
        if broken(text):
            raise self.wrong(key, "which has half of a character (a lone surrogate)")
        return text


def broken(text: str) -> bool:
    """Whether a text holds half of a character, so that no file can hold it."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def leaves(path: str) -> str:
    """What is wrong with a path from a file, which is to lie below its folder; links that a user made may lead out."""
    if "\0" in path:
        return "which is no path"
    up = os.pardir in path and Path(os.path.normpath(path)).parts[0] == os.pardir
    return "which leaves its folder" if up or os.path.isabs(path) else ""  # noqa: PTH117 (a text)


def path_of(name: str, columns: Collection[str]) -> list[str]:
    """A column and the keys inside it: `a.b` is a column of that name, or what lies under `b` in the column `a`."""
    return [name] if name in columns else name.split(".")


def inside(value: Any, keys: Sequence[str]) -> Any:
    """What lies under `keys` in objects, or in each object of a list; the value itself where it is no such thing."""
    for i, key in enumerate(keys):
        if isinstance(value, list):
            return [inside(part, keys[i:]) for part in value]
        if not isinstance(value, dict) or key not in value:
            return value
        value = value[key]
    return value


def words_alone(entry: dict[str, Any]) -> Any:
    """An answer without its confidence, as JSON is read: of 100,000 questions they are a million objects."""
    return entry["answer"] if "answer" in entry and "image" not in entry and "question_id" not in entry else entry


def _shown(value: Any) -> str:
    """A value in a sentence: never long, never deep."""
    return reprlib.repr(value)
