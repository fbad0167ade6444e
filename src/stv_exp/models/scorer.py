"""Scores prompts of one model the fastest way that agrees with full forwards, which it finds out first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from stv_exp.data.prompts import Prompt
from stv_exp.models.backbone import Backbone
from stv_exp.models.branches import shared_layers, shared_states
from stv_exp.models.caches import is_recurrent
from stv_exp.models.edits import Insertion
from stv_exp.models.prefix import Prefix, PrefixCache
from stv_exp.models.scoring import WAYS, full, tree, unedited

log = logging.getLogger(__name__)


class Scorer:
    """Scores prompts of one model, with their prefixes kept, the fastest way that agrees with full forwards."""

    def __init__(self, backbone: Backbone, max_bytes: int) -> None:
        self.backbone = backbone
        self.prefixes = PrefixCache(backbone, max_bytes)
        self.way = ""
        self.late = False  # whether branches may start at the first edited layer

    def choose(self, prompts: Sequence[Prompt], answers: Sequence[Tensor]) -> None:
        """Settle how this model's candidates are scored, on prompts that differ in length."""
        self.way = fastest_way(self.backbone, prompts, answers)
        self.late = self.way == "tree" and starts_late(self.backbone, prompts, answers)

    def warm(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[Tensor],
        batch_size: int,
        where: Insertion,
        advance: Callable[[int], object] = int,
    ) -> None:
        """Compute prefixes in full batches while they fit: for queries that will all be asked for anyway.

        So are the states that branches with insertions at the locations of `where` start from: in the same batches
        whenever a search begins or goes on, so that it does so bit for bit. `advance` counts the prefixes.
        """
        if self.way == "full" or not self.prefixes.warm(prompts, batch_size, advance):
            return
        for start in range(0, len(prompts) if self.late else 0, batch_size):
            part = slice(start, start + batch_size)
            self._share(self.prefixes.get(prompts[part]), answers[part], where)

    def _share(self, prefixes: Sequence[Prefix], answers: Sequence[Tensor], insertion: Insertion) -> None:
        """Have the prefixes keep what their branches start from."""
        if layers := shared_layers(insertion):
            shared_states(self.backbone, prefixes, answers, layers, partial(unedited, self.backbone))

    def score(self, prompts: Sequence[Prompt], answers: Sequence[Tensor], insertion: Insertion, when: str) -> Tensor:
        """Log-likelihood `[Q, S, N]` of each answer token (0 beyond an answer's end) under S insertions a query.

        `insertion.values` is `[Q or 1, S, K, D]` (and `keep` alike). Where they require a gradient, so does the result:
        the graph holds the branches alone, never a prefix.
        """
        if not self.way:
            with self.backbone.uncounted():  # work that is the same for one prompt and for a thousand
                self.choose(prompts[:2], answers[:2])
        gradient = insertion.values.requires_grad
        score = partial(full, self.backbone, prompts)
        if self.way != "full":
            prefixes = self.prefixes.get(prompts)
            late = self.late and (gradient or insertion.values.shape[1] > 1)
            if late:  # which has no backward
                self._share(prefixes, answers, insertion)
            score = partial(WAYS[self.way], self.backbone, prefixes, **({"late": True} if late else {}))
        before = self.backbone.token_forwards
        with torch.enable_grad() if gradient else torch.inference_mode():
            scores = score(answers, insertion, when)
        if gradient:  # its backward, which costs twice the forward
            self.backbone.token_forwards += 2 * (self.backbone.token_forwards - before)
        return scores


@torch.inference_mode()
def fastest_way(backbone: Backbone, prompts: Sequence[Prompt], answers: Sequence[Tensor]) -> str:
    """The first way that runs on this model and agrees with full forwards on two random insertions a prompt."""
    probe = _probe(backbone)
    tries = [(tried, full(backbone, prompts, tried, probe, "every_step")) for tried in _tried(backbone, answers)]
    for name, way in WAYS.items():
        try:
            apart = [PrefixCache(backbone, 1).get([prompt])[0] for prompt in prompts]  # joined, as in a search
            found = [way(backbone, apart, tried, probe, "every_step") for tried, _ in tries]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever foreign code raises at inputs that it does not know
            log.info("%s cannot be scored by %s (%s)", backbone.name, name, str(error).split("\n")[0])
            continue
        close = partial(torch.allclose, atol=_tolerance(backbone), rtol=0)
        if all(close(scores, expected) for scores, (_, expected) in zip(found, tries, strict=True)):
            return name
        log.info("%s scores otherwise by %s than by full forwards", backbone.name, name)
    log.info("%s is scored by full forwards, the slowest way", backbone.name)
    return "full"


def _tried(backbone: Backbone, answers: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """Layers with a state run one token by other code than several: a way has to agree on both."""
    if not is_recurrent(backbone.model.config):
        return [answers]
    return [[a[:1] for a in answers], [a.repeat(3)[: max(3, len(a))] for a in answers]]


def _tolerance(backbone: Backbone) -> float:
    """Absolute, and generous against rounding: its square root. A mask or position unheeded costs far more."""
    dtype = torch.bfloat16 if getattr(backbone.model, "is_quantized", False) else backbone.model.dtype
    return torch.finfo(dtype).eps ** 0.5


@torch.inference_mode()
def starts_late(backbone: Backbone, prompts: Sequence[Prompt], answers: Sequence[Tensor]) -> bool:
    """Whether this model's trees score alike where they start at the first edited layer, here the last one."""
    top = _probe(backbone).at_layer(backbone.heads.layers[-1])
    assert top is not None
    prefixes = [PrefixCache(backbone, 1).get([prompt])[0] for prompt in prompts]
    expected = tree(backbone, prefixes, answers, top, "every_step")
    try:
        found = tree(backbone, prefixes, answers, top, "every_step", late=True)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a layer that has to run, or gives out more than a state
        log.info("%s cannot start branches above its first layer (%s)", backbone.name, str(error).split("\n")[0])
        return False
    return torch.allclose(found, expected, atol=_tolerance(backbone), rtol=0)


def _probe(backbone: Backbone) -> Insertion:
    """Two random candidates at one head a layer: the others go on reading the prompt, so that its mask matters."""
    heads = backbone.heads
    order = torch.arange(heads.n_layers)
    vectors = torch.randn(1, 2, len(order), heads.dim, generator=torch.Generator().manual_seed(0))
    return Insertion(torch.stack([torch.tensor(heads.layers), order % (heads.n_heads or 1)], 1), vectors)
