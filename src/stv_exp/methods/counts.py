"""What several choices ask of `method.k` locations and `method.m` candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stv_exp.config import Config
from stv_exp.errors import StvError
from stv_exp.methods.choice import Grid

if TYPE_CHECKING:
    from torch import Tensor


def check_k(config: Config, grid: Grid) -> None:
    """Raise `StvError` where `method.k` locations cannot be had of a grid."""
    if not 1 <= config.method.k <= len(grid):
        raise StvError(f"method.k={config.method.k} is not within the {grid}; choose 1 to {len(grid)}.")


def best(scores: Tensor, k: int) -> Tensor:
    """The places `[k, 2]` or `[k, 1]` of the highest scores of a grid, the highest first."""
    import torch

    return torch.stack(torch.unravel_index(scores.flatten().topk(k).indices, scores.shape), 1)


def check_m(config: Config) -> None:
    """Raise `StvError` where `method.m` candidates cannot be had of the scan's activations."""
    m, pairs = config.method.m, config.scan.pairs
    if m > pairs:
        raise StvError(
            f"method.m={m} candidates cannot be made of scan.pairs={pairs} activations a location; "
            "lower method.m or raise scan.pairs."
        )
