"""ICV (Liu et al., ICML 2024): one direction a layer, towards which every token's MLP output is turned.

It is what answers change: the first principal component, plus the mean, of the embedding and the states after every
layer at an answer's last token, less those at its question's, each read alone. As published: x / |x| +
w (1 + max(0, cos(x, -v))) v / |v|, with the length of x, w = 0.1, 5 demonstrations, no training. That suits the
rewriting of texts; with `train.alone=false` the answer is read behind its query. Differences: both stand behind their
pictures, which the code does not know; punctuation, which it takes out of both, stays, as does the template's space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from stv_exp.errors import StvError
from stv_exp.methods.registry import register
from stv_exp.methods.trained import Frozen, Shape, Trained, norm_preserving

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.methods.trained import Parameters


@register("icv")
class ICV(Trained):
    """The direction in which answers move the states, one a layer, without training (ICV, ICML 2024)."""

    version = 2
    reads = ("method.edit", "train.shots", "train.layers", "train.alone", "insertion.weight")
    losses: ClassVar[Mapping[str, float]] = {}
    constants = ("vectors",)
    knows: ClassVar[Mapping[str, Any]] = {**Trained.knows, "weight": float}

    def check(self) -> None:
        if self.config.train.shots < 2:
            raise StvError("train.shots=1 leaves method.edit=icv one point, which has no component; use 2 or more.")

    def options(self, shape: Shape) -> dict[str, Any]:
        return {**super().options(shape), "weight": self.config.insertion.weight}

    def start(self, frozen: Frozen) -> dict[str, Tensor]:
        moved = frozen.moved("residual", self.config.train.shots, self.config.train.alone)
        return {"vectors": principal(moved.flatten(1)).view(moved.shape[1:])[1:]}

    @classmethod
    def shapes(cls, shape: Shape, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return {"vectors": (len(shape.layers), shape.hidden)}

    @classmethod
    def sites(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("mlp",)

    @classmethod
    def changed(cls, found: Tensor, site: str, row: int, p: Parameters, options: Mapping[str, Any]) -> Tensor:
        from torch.nn.functional import cosine_similarity, normalize

        v = p["vectors"][row]
        away = cosine_similarity(found, -v, dim=-1).clamp(min=0)[..., None]
        turned = normalize(found, dim=-1) + options["weight"] * (1 + away) * normalize(v, dim=-1)
        return norm_preserving(turned, found)


def principal(points: Tensor) -> Tensor:
    """First principal component of `points [N, D]`, its sign that of the point which it fits most, plus their mean."""
    import torch

    mean = points.mean(0)
    fits, _, components = torch.linalg.svd(points - mean, full_matrices=False)
    return components[0] * fits[fits[:, 0].abs().argmax(), 0].sign() + mean
