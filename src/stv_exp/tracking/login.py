"""Whether W&B takes this user online."""

from __future__ import annotations

from urllib.error import HTTPError
from urllib.request import Request, urlopen

import wandb

from stv_exp.errors import StvError

_SECONDS = 5


def check_login() -> None:
    """Raise `StvError` where W&B has no login, cannot be reached, or refuses the login."""
    if not wandb.login(prompt=False, verify=False):
        raise StvError(
            "tracker.mode=online needs a login; run `wandb login`, set WANDB_API_KEY, or use tracker.mode=offline."
        )
    address = wandb.setup().settings.base_url
    if not _answers(address):
        raise StvError(
            f"W&B cannot be reached at {address}; check the network (or WANDB_BASE_URL), or use tracker.mode=offline "
            "and publish later."
        )
    try:
        wandb.login(prompt=False)
    except Exception as error:  # its own, of several kinds
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise StvError(f"W&B refuses the login ({reason}); run `wandb login --relogin`.") from error


def _answers(address: str) -> bool:
    """Whether anything answers there, asked briefly: W&B's client would try for a long time."""
    try:
        urlopen(Request(address, method="HEAD"), timeout=_SECONDS).close()
    except HTTPError:  # which is an answer
        return True
    except OSError:
        return False
    return True
