"""Whether the hub can be reached, asked once and briefly: its client would try for half a minute, file by file."""

from __future__ import annotations

import os
from functools import cache

_SECONDS = 5


def hub_answers() -> bool:
    """Whether anything answers at the hub's address (HF_ENDPOINT); not where HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    return _answers((os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/"))


@cache
def _answers(address: str) -> bool:
    from huggingface_hub import get_session

    try:
        get_session().head(address, timeout=_SECONDS)
    except Exception:  # of the HTTP library, and which one that is depends on the client's version
        return False
    return True
