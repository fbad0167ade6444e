"""Locations by their sensitivity to demonstrations (STV, step 1), and four ways to measure it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stv_exp.errors import StvError
from stv_exp.methods.choice import Grid, Where
from stv_exp.methods.counts import best, check_k
from stv_exp.methods.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.scan import Scan


@register("sensitivity")
class Sensitivity(Where):
    """The `method.k` locations that demonstrations change most, by `method.sensitivity`."""

    reads = ("method.k", "method.sensitivity")
    location_search = ("scan",)

    def locations(self, scan: Scan) -> Tensor:
        return best(self.scores(scan), self.config.method.k)

    def scores(self, scan: Scan) -> Tensor:
        return SENSITIVITIES[self.config.method.sensitivity](scan)

    def check(self) -> None:
        if self.config.method.sensitivity not in SENSITIVITIES:
            raise StvError(
                f"method.sensitivity={self.config.method.sensitivity} is unknown; "
                f"choose one of {', '.join(SENSITIVITIES)}."
            )

    def check_grid(self, grid: Grid) -> None:
        check_k(self.config, grid)


def _l2(scan: Scan) -> Tensor:
    """Mean norm of the deltas: the paper's."""
    return scan.deltas.norm(dim=-1).mean(0)


def _mean_delta(scan: Scan) -> Tensor:
    """Norm of the mean delta: only what all queries share counts."""
    return scan.deltas.mean(0).norm(dim=-1)


def _snr(scan: Scan) -> Tensor:
    """Norm of the mean delta over the root mean square deviation from it."""
    deltas = scan.deltas
    mean = deltas.mean(0)
    spread = (deltas - mean).pow(2).sum(-1).mean(0).sqrt()
    return mean.norm(dim=-1) / (spread + 1e-8)


def _cosine(scan: Scan) -> Tensor:
    """Mean cosine distance between the activations with demonstrations and alone."""
    from torch import cosine_similarity

    return 1 - cosine_similarity(scan.with_demonstrations.float(), scan.alone.float(), dim=-1).mean(0)


SENSITIVITIES: dict[str, Callable[[Scan], Tensor]] = {
    "l2": _l2,
    "mean_delta": _mean_delta,
    "snr": _snr,
    "cosine": _cosine,
}
