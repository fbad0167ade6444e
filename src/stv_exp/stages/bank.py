"""Activation bank (STV, step 2): the candidates at each location are k-means centroids of its activations."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stv_exp.artefact import Artefact
from stv_exp.config import Config
from stv_exp.errors import StvError
from stv_exp.stages.scan import Scan

logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # which instruction set it tried is no news


@dataclass(frozen=True, eq=False)
class Bank(Artefact):
    """Locations `[K, 2]`, their candidates `[K, M, D]` and how many activations each candidate stands for `[K, M]`."""

    locations: Tensor
    centroids: Tensor
    sizes: Tensor


def build_bank(scan: Scan, config: Config) -> Bank:
    """Choose locations and cluster their activations as `config.method` says."""
    locations = choose_locations(scan, config)
    source = scan.deltas if config.insertion.mode == "add" else scan.with_demonstrations
    activations = source[:, locations[:, 0], locations[:, 1]].transpose(0, 1).float()  # [K, T, D]
    # The mean needs no clustering, and is exactly what one cluster gives.
    if config.method.what == "mean":
        sizes = torch.full((len(locations), 1), activations.shape[1])
        return Bank(locations, activations.mean(1, keepdim=True), sizes)
    return Bank(locations, *cluster(activations, config.method.m, config.seed))


def choose_locations(scan: Scan, config: Config) -> Tensor:
    """Locations `[K, 2]` by `method.where`; raises `StvError` where K exceeds the head count."""
    method = config.method
    n_layers, n_heads = scan.alone.shape[1:3]
    everywhere = torch.cartesian_prod(torch.arange(n_layers), torch.arange(n_heads))
    if method.where in ("all", "learned"):
        return everywhere
    check_k(config, n_layers, n_heads)
    if method.where == "random":
        return everywhere[sorted(random.Random(f"{config.seed}/where").sample(range(len(everywhere)), method.k))]
    return scan.top_locations(method.sensitivity, method.k)


def check_k(config: Config, n_layers: int, n_heads: int) -> None:
    """Raise `StvError` where the method needs more locations than there are heads."""
    k, total = config.method.k, n_layers * n_heads
    if config.method.where in ("sensitivity", "random") and not 1 <= k <= total:
        raise StvError(
            f"method.k={k} is not within the {total} heads of {config.model.name} "
            f"({n_layers} layers x {n_heads} heads); choose 1 to {total}."
        )


def cluster(activations: Tensor, m: int, seed: int) -> tuple[Tensor, Tensor]:
    """FAISS k-means at each location: `[K, T, D]` to centroids `[K, M, D]` and cluster sizes `[K, M]`."""
    if m > activations.shape[1]:
        raise StvError(
            f"method.m={m} candidates cannot be made of {activations.shape[1]} activations a location; "
            "lower method.m or raise scan.pairs."
        )
    centroids, sizes = zip(*(_kmeans(a, m, seed) for a in activations), strict=True)
    return torch.stack(centroids), torch.stack(sizes)


def _kmeans(activations: Tensor, m: int, seed: int) -> tuple[Tensor, Tensor]:
    import faiss

    # Sums in one order give one result; and on macOS faiss's and torch's OpenMP crash together on more.
    faiss.omp_set_num_threads(1)
    data = activations.contiguous().numpy()
    # Few activations a candidate is the method's normal case, not a mistake worth faiss's warning.
    kmeans = faiss.Kmeans(data.shape[1], m, niter=25, seed=seed, min_points_per_centroid=1)
    kmeans.train(data)
    _, nearest = kmeans.index.search(data, 1)
    centroids = torch.from_numpy(np.array(kmeans.centroids))
    return centroids, torch.bincount(torch.from_numpy(nearest[:, 0]), minlength=m)
