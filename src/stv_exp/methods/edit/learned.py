"""Learned task vectors (arXiv 2509.24169, which has no public code): a free vector at each location, by cross-entropy.

One location a head (or a layer, at the other sites) of the edited layers; the vector enters as `insertion` says, at the
tokens where a task vector does. The paper trains at one layer (`train.layers`); the start at the mean is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from stv_exp.methods.registry import register
from stv_exp.methods.trained import Frozen, Shape, Trained, norm_preserving

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.methods.trained import Parameters

_INSERTED = ("when", "mode", "weight", "norm_preserving")


@register("learned")
class Learned(Trained):
    """A free vector at every location of the site, trained by cross-entropy (LTV, arXiv 2509.24169)."""

    reads = (
        *Trained.reads,
        "method.site",
        *(f"insertion.{name}" for name in _INSERTED),
        "train.start",
        "train.shots",
        "demonstrations.choice",
    )
    knows: ClassVar[Mapping[str, Any]] = {
        **Trained.knows,
        **dict.fromkeys(("site", "when", "mode"), str),
        "weight": float,
        "norm_preserving": bool,
    }

    def options(self, shape: Shape) -> dict[str, Any]:
        inserted = {name: getattr(self.config.insertion, name) for name in _INSERTED}
        return {**super().options(shape), "site": self.config.method.site, **inserted}

    def start(self, frozen: Frozen) -> dict[str, Tensor]:
        from torch import zeros

        shape = self.shapes(frozen.shape, {"site": self.config.method.site})["vectors"]
        if self.config.train.start == "zero":
            return {"vectors": zeros(shape)}
        return {"vectors": frozen.mean(self.config.method.site, "contexts")}

    @classmethod
    def shapes(cls, shape: Shape, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        one = (shape.n_heads, shape.head_dim) if options["site"] == "head" else (shape.hidden,)
        return {"vectors": (len(shape.layers), *one)}

    @classmethod
    def sites(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        return (options["site"],)

    @classmethod
    def when(cls, options: Mapping[str, Any]) -> str:
        return options["when"]

    @classmethod
    def changed(cls, found: Tensor, site: str, row: int, p: Parameters, options: Mapping[str, Any]) -> Tensor:
        vector, w = p["vectors"][row].expand_as(found), options["weight"]
        new = {"replace": vector, "add": found + w * vector, "blend": (1 - w) * found + w * vector}[options["mode"]]
        return norm_preserving(new, found) if options["norm_preserving"] else new
