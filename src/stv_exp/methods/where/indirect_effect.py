"""Locations by their causal indirect effect (Todd et al., ICLR 2024, section 2.2).

In a prompt whose demonstrations have each other's answers, one location's activation at the last token is replaced by
its mean over prompts with true ones; the effect is what the probability of the query's answer gains by that.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from stv_exp.data.prompts import Prompt, make_prompt
from stv_exp.errors import StvError
from stv_exp.methods.choice import Grid, Where
from stv_exp.methods.counts import best, check_k
from stv_exp.methods.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.scan import Scan
    from stv_exp.methods.probe import Probe


@register("indirect_effect")
class IndirectEffect(Where):
    """The `method.k` locations whose mean restores the answer most in prompts with shuffled answers (FV)."""

    reads = ("method.k", "scan.effect_prompts", "policy.cache_bytes")
    asks = ("scan.effect_prompts",)
    location_search = ("scan", "effects")

    def measure(self, probe: Probe, scan: Scan) -> Tensor:
        """Gain in probability (not its logarithm) `[*grid]`, its mean over `scan.effect_prompts` prompts."""
        pick = random.Random(f"{self.config.seed}/shuffled")
        prompts = [shuffled(prompt, pick) for prompt in probe.prompts(self.asked())]
        replaced, before = probe.probabilities(prompts, scan.with_demonstrations.float().mean(0))
        return replaced.mean(0) - before.mean(0)

    def asked(self) -> int:
        return self.config.scan.effect_prompts

    def locations(self, scan: Scan) -> Tensor:
        return best(self.scores(scan), self.config.method.k)

    def scores(self, scan: Scan) -> Tensor:
        if scan.effects is None:
            raise StvError(
                f"method.where={self.name} ranks locations by what the model answers; hand build_bank the backbone and "
                "the task."
            )
        return scan.effects

    def check(self) -> None:
        if self.config.scan.shots < 2:
            raise StvError(f"scan.shots=1 leaves method.where={self.name} no answers to shuffle; use 2 or more.")

    def check_grid(self, grid: Grid) -> None:
        check_k(self.config, grid)


def shuffled(prompt: Prompt, pick: random.Random) -> Prompt:
    """The same prompt whose demonstrations pass their answers on in one circle, so that none keeps its own."""
    shown = prompt.demonstrations
    circle = pick.sample(range(len(shown)), len(shown))
    given = dict(zip(circle, [*circle[1:], *circle[:1]], strict=True))
    mixed = [replace(example, answers=shown[given[i]].answers) for i, example in enumerate(shown)]
    return make_prompt(prompt.template, prompt.query, mixed)
