"""Whether W&B takes this user online."""

from __future__ import annotations

import wandb

from stv_exp.errors import StvError


def check_login() -> None:
    """Raise `StvError` where W&B has no login, refuses it, or cannot be reached."""
    try:
        known = wandb.login(prompt=False)
    except Exception as error:  # of its own, or of its HTTP library
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise StvError(
            f"tracker.mode=online does not work here ({reason}); check the login and the network, or use "
            "tracker.mode=offline."
        ) from error
    if not known:
        raise StvError(
            "tracker.mode=online needs a login; run `wandb login`, set WANDB_API_KEY, or use tracker.mode=offline."
        )
