"""MimIC (Jiang et al., CVPR 2025): at every token, mu x a learned vector is added to each head before its projection.

mu = Z1 / (Z1 + Z2): Z2 is the sum of the exponentiated scores of the own keys; log Z1, that of demonstrations, is
linear in the query. Trained to give what the MLPs give behind many demonstrations (mean squared error) and the answer
(0.5 x cross-entropy). Starts as published. Differences: the code sums Z2 over all keys, later and padded ones too, here
over those that the token sees (`train.unseen`: as published); the cross-entropy is of the answer's tokens and the
squared error of the tokens that they are foretold at, a mean over a batch's tokens, where the code's are of the whole
query's, a mean of each example's; no padding stands between a query and its answer; the teacher's demonstrations are
drawn once an example, not once an epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from stv_exp.methods.registry import register
from stv_exp.methods.trained import TAUGHT, Attended, Frozen, Shape, Trained

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.methods.trained import Parameters


@register("mimic")
class Mimic(Trained):
    """A vector a head with a share that depends on the query, taught by the many-shot prompt (MimIC, CVPR 2025)."""

    reads = (*Trained.reads, *TAUGHT, "train.unseen")
    losses: ClassVar[Mapping[str, float]] = {"mse": 1.0, "ce": 0.5}
    observed = "mlp"
    undecayed = ("bias",)
    attends = True
    knows: ClassVar[Mapping[str, Any]] = {**Trained.knows, "unseen": bool}

    def options(self, shape: Shape) -> dict[str, Any]:
        return {**super().options(shape), "unseen": self.config.train.unseen}

    def start(self, frozen: Frozen) -> dict[str, Tensor]:
        import torch

        std = {"vectors": 0.001, "weight": 0.02, "bias": 0.0}
        shapes = self.shapes(frozen.shape, {})
        return {name: std[name] * torch.randn(size, generator=frozen.generator) for name, size in shapes.items()}

    @classmethod
    def shapes(cls, shape: Shape, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        heads = (len(shape.layers), shape.n_heads)
        return {"vectors": (*heads, shape.head_dim), "weight": (*heads, shape.head_dim), "bias": heads}

    @classmethod
    def attended(cls, seen: Attended, row: int, p: Parameters, options: Mapping[str, Any]) -> Tensor:
        log_z1 = (seen.queries * p["weight"][row, :, None]).sum(-1) + p["bias"][row, :, None]
        mu = (log_z1 - seen.denominator(options["unseen"])).sigmoid()
        return seen.out + mu[..., None] * p["vectors"][row, :, None]
