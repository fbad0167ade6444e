"""What a run says about itself in plain sentences, where one of the known failures shows."""

from __future__ import annotations

from statistics import fmean, stdev

from stv_exp.artefacts.chosen import Chosen

_GAP = 0.2  # nats a token


def diagnose(chosen: Chosen | None) -> list[str]:
    """The sentences that apply to one run."""
    if chosen is None:
        return []
    return [s for s in (_no_insertion(chosen), _no_better_than_random(chosen), _lost_when_discrete(chosen)) if s]


def discretisation_gap(chosen: Chosen) -> float | None:
    """Reward of a search's own forward less that of its discrete choice, in the last quarter of steps.

    None for searches whose forward is discrete by construction: they have no loss.
    """
    loss, reward = (chosen.history.get(name, []) for name in ("loss", "reward"))
    if not loss:
        return None
    last = max(1, len(loss) // 4)
    return -fmean(loss[-last:]) - fmean(reward[-last:])


def _lost_when_discrete(chosen: Chosen) -> str | None:
    gap = discretisation_gap(chosen)
    if gap is None or gap < _GAP:
        return None
    return (
        f"The discrete choice is worse than the forward that found it (by {gap:.2f} nats a token): "
        "search longer, or with policy.straight_through=true."
    )


def _no_insertion(chosen: Chosen) -> str | None:
    if len(chosen.locations):
        return None
    return "The chosen vector equals no insertion: the search left every head alone."


def _no_better_than_random(chosen: Chosen) -> str | None:
    """Paired over the last quarter of steps: both draws answered the same queries."""
    reward, random = (chosen.history.get(name, []) for name in ("reward", "reward_random"))
    gains = [a - b for a, b in zip(reward, random, strict=True)][-max(2, len(reward) // 4) :]
    if len(gains) < 2 or fmean(gains) > 2 * stdev(gains) / len(gains) ** 0.5:
        return None
    return (
        f"The policy's reward is no better than that of random candidates (by {fmean(gains):+.3f} in the last "
        f"{len(gains)} steps): the reward is too sparse, the steps are too few, or one candidate was already enough."
    )
