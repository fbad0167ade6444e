"""What an edit with parameters is: pure functions of activations, whose parameters are trained through the model.

The hooks that call them, the training and the file that they are saved in are one for all edits, and know none by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from stv_exp.errors import StvError
from stv_exp.methods.choice import Choice, Grid, How, What, Where

if TYPE_CHECKING:
    from torch import Generator, Tensor

    Parameters = Mapping[str, Tensor]

TEACHING = ("kl", "mse")  # losses that need what the many-shot prompt gives
TAUGHT = ("train.shots", "demonstrations.choice")  # settings that an edit with a teacher reads as well
_BASE = ("epochs", "batch", "lr", "weight_decay", "warmup", "clip", "tokens", "patience", "layers")


@dataclass(frozen=True)
class Shape:
    """What an edit's parameters are shaped by: the `layers` that it edits, by number, and the sizes of the model.

    `projections` are the widths, in and out, of the linear modules of attention by name.
    """

    layers: tuple[int, ...]
    n_heads: int
    head_dim: int
    hidden: int
    projections: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Attended:
    """A layer's attention over its own keys.

    `out [B, H, T, D]` is what it gives, `queries [B, H, T, D]` what it was asked with (rotary position included) and
    `log_z [B, H, T]` the logarithm of its denominator, causal and padding mask applied; `log_z_unseen` is the same with
    the keys that a token does not see. Scores are `scaling` x q.k.
    """

    out: Tensor
    queries: Tensor
    log_z: Tensor
    log_z_unseen: Callable[[], Tensor]
    scaling: float

    def denominator(self, unseen: bool) -> Tensor:
        """`log_z`, over the keys that a token sees, or over all."""
        return self.log_z_unseen() if unseen else self.log_z


class Frozen(Protocol):
    """What the start of a training may ask the frozen model."""

    shape: Shape
    generator: Generator

    def mean(self, site: str, of: str) -> Tensor:
        """Mean activation a layer `[L, H, D]` or `[L, hidden]`, over the support.

        Of `answers`: at what ends the answer to a query, as what follows a demonstration; of `contexts`: at the last
        token of a prompt behind `train.shots` demonstrations.
        """
        ...

    def moved(self, site: str, n: int, alone: bool) -> Tensor:
        """What the answers of `n` support examples change `[n, 1 + L, hidden]`: at their last token, less the query's.

        The first row is what the embedding says. Answers stand behind their queries, or, as questions then do, `alone`.
        """
        ...


class Trained(Choice):
    """An edit with parameters. What a file needs beside them are its `options`, of the types `knows`.

    `losses` are their weights: `ce` of the answer, `kl` to the many-shot teacher's distribution, `mse` to its
    activations at the site `observed`; without any, the start is all there is. `constants` are not trained. Parameters
    in `rates` have the learning rate of that setting, those in `undecayed` no weight decay. Losses are of answer
    tokens.
    """

    kind = "edit"
    trains: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("method.edit", *(f"train.{name}" for name in _BASE))
    losses: ClassVar[Mapping[str, float]] = {"ce": 1.0}
    observed: ClassVar[str] = "residual"
    constants: ClassVar[tuple[str, ...]] = ()
    rates: ClassVar[Mapping[str, str]] = {}
    undecayed: ClassVar[tuple[str, ...]] = ()
    noisy: ClassVar[bool] = False  # whether activations get `train.noise` while it trains
    attends: ClassVar[bool] = False  # whether it edits attention itself
    adapts: ClassVar[bool] = False  # whether it is a low-rank update of the projections of attention
    knows: ClassVar[Mapping[str, Any]] = {"layers": list[int]}

    def options(self, shape: Shape) -> dict[str, Any]:
        """What is saved beside the parameters."""
        return {"layers": list(shape.layers)}

    def start(self, frozen: Frozen) -> dict[str, Tensor]:
        """The parameters before training, in the `shapes` of `frozen.shape`."""
        raise NotImplementedError

    @classmethod
    def shapes(cls, shape: Shape, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, L layers first."""
        raise NotImplementedError

    @classmethod
    def sites(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Where it changes activations."""
        return ()

    @classmethod
    def when(cls, options: Mapping[str, Any]) -> str:
        """Which tokens it changes there: every_token, or every_step and prompt as task vectors do."""
        return "every_token"

    @classmethod
    def changed(cls, found: Tensor, site: str, row: int, p: Parameters, options: Mapping[str, Any]) -> Tensor:
        """Activations `[..., hidden]` (`[..., H, D]` at heads) of the `row`th edited layer, as they go on."""
        raise NotImplementedError

    @classmethod
    def attended(cls, seen: Attended, row: int, p: Parameters, options: Mapping[str, Any]) -> Tensor:
        """What the `row`th edited layer's attention gives out `[B, H, T, D]`."""
        raise NotImplementedError

    @property
    def taught(self) -> bool:
        """Whether training needs the many-shot teacher."""
        return any(loss in TEACHING for loss in self.losses)

    def per_epoch(self, n_support: int) -> int:
        """Steps of an epoch, what fills no batch left out; none where nothing is trained."""
        return n_support // self.config.train.batch if self.losses else 0

    def needs(self, where: Where, what: What, how: How) -> str | None:
        if (where.name, what.name, how.name) == ("none", "none", "none"):
            return None
        return "where=none, what=none and how=none: what is trained is the edit"

    def check_grid(self, grid: Grid) -> None:
        layers, known = self.config.train.layers, grid.numbers or (*range(grid.n_layers),)
        if not {*layers} <= {*known} or len({*layers}) < len(layers):
            from stv_exp.models.paths import numbers

            raise StvError(
                f"train.layers={layers} are not different layers of {grid.model} at the site {grid.site}; "
                f"choose some of {numbers(known)}, or none for all."
            )


def norm_preserving(new: Tensor, old: Tensor) -> Tensor:
    """`new [..., D]` with the lengths of `old`."""
    return new * (old.norm(dim=-1, keepdim=True) / new.norm(dim=-1, keepdim=True).clamp(min=1e-12))
