"""The one exception that users see as a sentence instead of a traceback."""

from __future__ import annotations

import re

# What would move a terminal's cursor, break its line, turn its text around or cannot be written at all.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class StvError(Exception):
    """Bad input. The message is one sentence: what is wrong, where, and what to do; safe to print."""

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence.replace("\n", " ")))


def printable(text: str) -> str:
    """A text from outside as a terminal or a picture can show it, with what would act on these escaped."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
