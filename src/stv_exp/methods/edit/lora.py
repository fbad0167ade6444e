"""LoRA (Hu et al., ICLR 2022): the reference, which changes the weights of attention instead of its activations.

Every linear projection of the attention of a layer becomes W + 2 B A of `train.rank`, through `peft`; A starts as peft
does, B at 0. Settings are those of MimIC's comparison (rank 16, alpha 32, rate 5e-4, cross-entropy). Differences: no
dropout; weight decay 0.01, there 1e-3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from stv_exp.errors import StvError
from stv_exp.methods.registry import register
from stv_exp.methods.trained import Frozen, Shape, Trained

if TYPE_CHECKING:
    from torch import Tensor


@register("lora")
class Lora(Trained):
    """Low-rank updates of attention's projections, by cross-entropy: no edit of activations, a reference (LoRA)."""

    reads = (*Trained.reads, "train.rank")
    adapts = True
    knows: ClassVar[Mapping[str, Any]] = {**Trained.knows, "rank": int}

    def check(self) -> None:
        if not self.config.train.rank:
            raise StvError("train.rank=0 leaves LoRA nothing to train; set it to at least 1.")

    def options(self, shape: Shape) -> dict[str, Any]:
        return {**super().options(shape), "rank": self.config.train.rank}

    def start(self, frozen: Frozen) -> dict[str, Tensor]:
        import torch

        found = {}
        for name, size in self.shapes(frozen.shape, self.options(frozen.shape)).items():
            most = size[-1] ** -0.5 if name.endswith("_a") else 0.0
            found[name] = most * (2 * torch.rand(size, generator=frozen.generator) - 1)
        return found

    @classmethod
    def shapes(cls, shape: Shape, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        n, rank = len(shape.layers), options["rank"]
        sides = {f"{name}_a": (n, rank, wide) for name, (wide, _) in shape.projections.items()}
        return sides | {f"{name}_b": (n, wide, rank) for name, (_, wide) in shape.projections.items()}
