"""Branches that start at the first edited layer: below it the tokens of all candidates are the same.

Their states there are computed once a query and answer, and kept with its prefix; the layers below are then passed by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from stv_exp.models.backbone import Backbone
from stv_exp.models.edits import Insertion
from stv_exp.models.prefix import Prefix


def shared_layers(insertion: Insertion) -> int:
    """How many layers, from the bottom, run the same for every candidate."""
    if not len(insertion.locations):
        return 0
    lowest = int(insertion.locations[:, 0].min())
    return lowest + 1 if insertion.site == "residual" else lowest  # that site is what leaves a layer


@torch.no_grad()
def shared_states(
    backbone: Backbone,
    prefixes: Sequence[Prefix],
    answers: Sequence[Tensor],
    layers: int,
    run: Callable[[list[Prefix], list[Tensor]], object],
) -> Tensor:
    """What leaves the last shared layer at each branch token `[Q, N, hidden]`, zero beyond an answer's end.

    `run` passes one unedited branch a query through the model, for those that are not kept.
    """
    keys = [(layers, *answer.tolist()) for answer in answers]
    missing = [i for i, (prefix, key) in enumerate(zip(prefixes, keys, strict=True)) if key not in prefix.states]
    if missing:
        found: list[Tensor] = []
        with ExitStack() as stack:
            # The last one that runs: some families pass by layers, those of cross-attention without pictures.
            for module in (backbone.model.get_input_embeddings(), *_below(backbone, layers)):
                handle = module.register_forward_hook(lambda _, args, output: found.append(_hidden(output)))
                stack.callback(handle.remove)
            run([prefixes[i] for i in missing], [answers[i] for i in missing])
        for row, i in enumerate(missing):
            prefixes[i].states[keys[i]] = found[-1][row, : len(answers[i])].clone()
    return pad_sequence([p.states[key] for p, key in zip(prefixes, keys, strict=True)], batch_first=True)


@contextmanager
def started_above(backbone: Backbone, layers: int, states: Tensor) -> Iterator[None]:
    """Within the block forwards pass by the first `layers` layers, each of which gives out `states [B, T, hidden]`."""
    below = _below(backbone, layers)
    before, backbone.share = backbone.share, 1 - len(below) / backbone.site("residual").n_layers
    try:
        for module in below:
            module.forward = _passed_by(states)
        yield
    finally:
        backbone.share = before
        for module in below:
            module.__dict__.pop("forward", None)


def _below(backbone: Backbone, layers: int) -> list[nn.Module]:
    """The first `layers` layers."""
    site = backbone.site("residual")
    return [module for layer, module in zip(site.layers, site.modules, strict=True) if layer < layers]


def _passed_by(states: Tensor) -> Callable[..., Any]:
    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return states.to(hidden_states.device)

    return forward


def _hidden(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]
