"""Sparse attention vectors (SAVs, arXiv 2412.00142): a few heads that tell the labels apart, and a vote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stv_exp.methods.classifier import Classifier
from stv_exp.methods.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.readings import Classes, Readings


@register("class_means")
class ClassMeans(Classifier):
    """The `method.k` heads that tell labels apart best vote for the label of the nearest mean; no insertion (SAVs)."""

    def learn(self, readings: Readings) -> Classes:
        """Means of each label's examples, and the heads whose nearest mean is right for most of the same examples."""
        import torch

        from stv_exp.artefacts.readings import Classes

        labels = list(dict.fromkeys(sorted(readings.labels)))
        truth = torch.tensor([labels.index(label) for label in readings.labels])
        activations = readings.activations.float()
        means = torch.stack([activations[truth == c].mean(0) for c in range(len(labels))], -2)  # [*grid, C, D]
        right = (nearest(activations, means) == truth.view(-1, *[1] * len(readings.grid))).float().mean(0)
        order = right.flatten().sort(descending=True, stable=True).indices  # many are equal
        places = torch.stack(torch.unravel_index(order[: self.config.method.k], right.shape), 1)
        return Classes(labels, places, means[tuple(places.unbind(1))], readings.site)

    def label(self, classes: Classes, activations: Tensor) -> Tensor:
        """The label with most votes; of equal ones, that of the best head among their voters."""
        import torch

        votes = torch.nn.functional.one_hot(nearest(activations.float(), classes.means), len(classes.labels))
        k = votes.shape[1]
        rank = torch.arange(k, 0, -1)[:, None]
        first = (votes * rank).amax(1) / (k + 1)  # below 1: decides between equal counts only
        return (votes.sum(1) + first).argmax(-1)


def nearest(activations: Tensor, means: Tensor) -> Tensor:
    """The class `[N, ...]` whose mean `[..., C, D]` has the highest cosine similarity to `activations [N, ..., D]`."""
    from torch.nn.functional import normalize

    return (normalize(means, dim=-1) @ normalize(activations, dim=-1)[..., None])[..., 0].argmax(-1)
