"""ICV (`shengliu66/ICV`) written plainly: hooks on whole layers and MLPs, batch 1, full forwards.

A demonstration is two texts, its question and its answer; ours may also be a query, and the same with its answer.

Differences kept on purpose are of the texts, which are handed over: behind their pictures, with their punctuation and
the template's space, where the published code reads stripped texts alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from tests.oracles.training import Question, answer_logits


@torch.no_grad()
def states(network: Any, layers: Sequence[nn.Module], inputs: dict[str, Tensor]) -> Tensor:
    """What leaves each layer at the last token, all in one row."""
    found: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        found.append((output if isinstance(output, Tensor) else output[0])[0, -1])

    handles = [layer.register_forward_hook(keep) for layer in layers]
    network(**inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.cat(found)


def directions(
    network: Any, layers: Sequence[nn.Module], demonstrations: Sequence[tuple[dict[str, Tensor], dict[str, Tensor]]]
) -> Tensor:
    """One a layer `[L, hidden]`, of demonstrations (question, answer); the embedding is one that is then cut off."""
    layers = [network.get_input_embeddings(), *layers]
    points = torch.stack([states(network, layers, y) - states(network, layers, x) for x, y in demonstrations])
    centred = points - points.mean(0)
    _, vectors = torch.linalg.eigh(centred @ centred.T)  # of the points, not of the dimensions: the same components
    weights = vectors[:, -1]
    component = normalize(weights @ centred, dim=0) * weights[weights.abs().argmax()].sign()
    return (component + points.mean(0)).view(len(layers), -1)[1:]


@torch.no_grad()
def logits(network: Any, mlps: Sequence[nn.Module], vectors: Tensor, strength: float, question: Question) -> Tensor:
    """Answer logits with every MLP's output turned, at every token."""

    def turn(v: Tensor) -> Any:
        def hook(module: nn.Module, args: Any, x: Tensor) -> Tensor:
            similar = 1 + torch.relu(cosine_similarity(x, -v[None, None], dim=-1))[..., None]
            y = normalize(x, dim=-1) + strength * similar * normalize(v, dim=-1)
            return normalize(y, dim=-1) * x.norm(dim=-1, keepdim=True)

        return hook

    handles = [mlp.register_forward_hook(turn(v)) for mlp, v in zip(mlps, vectors, strict=True)]
    found = answer_logits(network, question)
    for handle in handles:
        handle.remove()
    return found
