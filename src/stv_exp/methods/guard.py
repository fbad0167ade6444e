"""Holds choices to their word: what they return has the promised shape, and what they raise names them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stv_exp.errors import StvError
from stv_exp.methods.choice import Choice, How, What, Where

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.bank import Bank
    from stv_exp.artefacts.scan import Scan

_ROUNDING = 1e-3  # of half precision


@contextmanager
def blamed(choice: Choice) -> Iterator[None]:
    """Errors inside name the choice; those of the package's own keep their traceback."""
    try:
        yield
    except StvError:
        raise
    except Exception as error:
        if type(choice).__module__.startswith("stv_exp."):
            raise
        reason = f"{type(error).__name__}: {error}".strip().split("\n")[0].rstrip(".")
        raise StvError(f"method.{choice.kind}={choice.name} failed ({reason}); mend it.") from error


def checked_locations(where: Where, scan: Scan) -> Tensor:
    """The locations of a choice: whole numbers `[K, len(grid)]`, all different, within the scan's grid."""
    import torch

    with blamed(where):
        found = where.locations(scan)
    shaped = isinstance(found, torch.Tensor) and found.dim() == 2 and found.shape[1] == len(scan.grid)
    if not shaped or found.is_floating_point() or not len(found):
        raise _wrong(where, f"whole numbers [K, {len(scan.grid)}]", found)
    inside = (found >= 0).all() and (found < torch.tensor(scan.grid)).all()
    if not inside or len(found.unique(dim=0)) < len(found):
        raise StvError(
            f"method.where={where.name} returns locations twice or outside the model's {scan.grid}; mend it."
        )
    return found


def checked_effects(where: Where, effects: Tensor, grid: tuple[int, ...]) -> Tensor:
    """What a choice has measured: one finite number a location of the grid."""
    import torch

    if not isinstance(effects, torch.Tensor) or effects.shape != grid:
        raise _wrong(where, f"numbers {list(grid)}", effects)
    if not torch.isfinite(effects).all():
        raise StvError(
            f"method.where={where.name} measures NaN or infinity; check the weights or use model.dtype=float32."
        )
    return effects


def checked_candidates(what: What, activations: Tensor) -> tuple[Tensor, Tensor]:
    """The candidates `[K, M, D]` of a choice, all finite, and their sizes `[K, M]`."""
    import torch

    with blamed(what):
        found, sizes = what.candidates(activations)
    k, _, d = activations.shape
    shaped = isinstance(found, torch.Tensor) and found.dim() == 3 and (found.shape[0], found.shape[2]) == (k, d)
    if not shaped or not found.shape[1] or sizes.shape != found.shape[:2]:
        raise _wrong(what, f"candidates [{k}, M, {d}] and sizes [{k}, M]", found)
    if not torch.isfinite(found).all():
        raise StvError(f"method.what={what.name} returns NaN or infinite candidates; mend it.")
    return found, sizes


def checked_choices(how: How, bank: Bank, choices: Tensor) -> Tensor:
    """One choice a location `[K]`, within its candidates (and M, where it may be left alone); or shares `[K, C]`."""
    import torch

    k, m = bank.centroids.shape[:2]
    options = m + how.may_decline
    if isinstance(choices, torch.Tensor) and choices.is_floating_point() and choices.shape == (k, options):
        if not torch.isfinite(choices).all() or choices.min() < 0 or (choices.sum(-1) - 1).abs().max() > _ROUNDING:
            raise StvError(f"method.how={how.name} returns shares that do not sum to 1 at every location; mend it.")
        return choices
    if not isinstance(choices, torch.Tensor) or choices.shape != (k,) or choices.is_floating_point():
        raise _wrong(how, f"whole numbers [{k}], or shares [{k}, {options}]", choices)
    if choices.min() < 0 or choices.max() >= options:
        raise StvError(f"method.how={how.name} returns a choice beyond the {m} candidates a location; mend it.")
    return choices


def _wrong(choice: Choice, expected: str, found: object) -> StvError:
    shape = f"{found.dtype} {list(found.shape)}" if hasattr(found, "shape") and hasattr(found, "dtype") else repr(found)
    return StvError(f"method.{choice.kind}={choice.name} returns {shape} instead of {expected}; mend it.")
