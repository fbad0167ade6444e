"""What single heads write into the residual stream."""

from __future__ import annotations

import torch
from torch import Tensor

from stv_exp.models.sites import Site


@torch.no_grad()
def images(heads: Site, locations: Tensor, vectors: Tensor) -> Tensor:
    """The images `[K, M, hidden]` of `vectors [K, M, D]` under their heads' slices of the output projections.

    `locations [K, 2]` are (layer, head). The projections themselves are run, whatever form their weights have; their
    bias, which no head writes, is taken off.
    """
    found = []
    for (layer, head), own in zip(locations.tolist(), vectors, strict=True):
        project = heads.modules[heads.layers.index(layer)]
        weight = next(iter(project.parameters()))
        slots = torch.zeros(len(own) + 1, heads.n_heads or 1, heads.dim)  # the last one stays zero
        slots[:-1, head] = own
        dtype = weight.dtype if weight.is_floating_point() else torch.float16
        written = project(slots.flatten(1).to(weight.device, dtype)).float().cpu()
        found.append(written[:-1] - written[-1])
    return torch.stack(found)
