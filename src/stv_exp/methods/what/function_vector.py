"""Function vectors (Todd et al., ICLR 2024, section 2.3): what a few heads write, summed into one vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stv_exp.errors import StvError
from stv_exp.methods.registry import register
from stv_exp.methods.what.mean import Mean

if TYPE_CHECKING:
    from torch import Tensor


@register("function_vector")
class FunctionVector(Mean):
    """The sum of what the heads' mean activations write into the residual stream: one candidate at every layer (FV).

    A head writes its slice's image under the output projection, without the bias. Families that normalise what
    attention has written (Gemma 2 and 3) do so afterwards: there the sum is that of before.
    """

    moves_to = "residual"

    def moved(self, images: Tensor) -> Tensor:
        return images.sum(0)

    def check(self) -> None:
        if self.config.method.site != "head":
            raise StvError(
                f"method.what={self.name} sums what heads write, which method.site={self.config.method.site} has none "
                "of; use method.site=head."
            )
