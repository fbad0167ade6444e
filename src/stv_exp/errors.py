"""The one exception that users see as a sentence instead of a traceback."""


class StvError(Exception):
    """Bad input. The message is one sentence: what is wrong, where, and what to do."""
