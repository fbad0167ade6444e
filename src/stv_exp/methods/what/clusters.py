"""Centroids of a location's activations (STV, step 2)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stv_exp.methods.choice import What
from stv_exp.methods.counts import check_m
from stv_exp.methods.registry import register

if TYPE_CHECKING:
    from torch import Tensor

logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # which instruction set it tried is no news


@register("clusters")
class Clusters(What):
    """`method.m` k-means centroids (FAISS)."""

    reads = ("method.m",)

    def candidates(self, activations: Tensor) -> tuple[Tensor, Tensor]:
        return cluster(activations, self.config.method.m, self.config.seed)

    def check(self) -> None:
        check_m(self.config)


def cluster(activations: Tensor, m: int, seed: int) -> tuple[Tensor, Tensor]:
    """FAISS k-means at each location: `[K, T, D]` to centroids `[K, M, D]` and cluster sizes `[K, M]`."""
    import torch

    centroids, sizes = zip(*(_kmeans(a, m, seed) for a in activations), strict=True)
    return torch.stack(centroids), torch.stack(sizes)


def _kmeans(activations: Tensor, m: int, seed: int) -> tuple[Tensor, Tensor]:
    import faiss
    import numpy as np
    import torch

    # Sums in one order give one result; and on macOS faiss's and torch's OpenMP crash together on more.
    faiss.omp_set_num_threads(1)
    data = activations.contiguous().numpy()
    # Few activations a candidate is the method's normal case, not a mistake worth faiss's warning; of many, faiss
    # would train on a sample.
    bounds = {"min_points_per_centroid": 1, "max_points_per_centroid": len(data)}
    kmeans = faiss.Kmeans(data.shape[1], m, niter=25, seed=seed, **bounds)
    kmeans.train(data)
    _, nearest = kmeans.index.search(data, 1)
    centroids = torch.from_numpy(np.array(kmeans.centroids))
    return centroids, torch.bincount(torch.from_numpy(nearest[:, 0]), minlength=m)
