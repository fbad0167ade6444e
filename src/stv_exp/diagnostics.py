"""What a run says about itself in plain sentences, where one of the known failures shows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from statistics import fmean, stdev

from stv_exp.artefacts.chosen import Chosen
from stv_exp.stages.evaluate import Prediction

_GAP = 0.2  # nats a token
_TAG = re.compile(r"\s*(<[^<>\s]{1,40}>|\[/?[A-Z_]{2,20}\])")  # <think>, <|channel|>, [THINK]


def diagnose(chosen: Chosen | None, predictions: Sequence[Prediction] = (), options: int = 2) -> list[str]:
    """The sentences that apply to one run; a location had `options` to choose from, "leave it alone" included."""
    found = [_mostly_empty(predictions), _mostly_one_tag(predictions)]
    if chosen is not None:
        found += [_no_insertion(chosen), _lost_when_discrete(chosen)]
        found += [_no_better_than_random(chosen)] if options > 1 else []
    return [sentence for sentence in found if sentence]


def discretisation_gap(chosen: Chosen) -> float | None:
    """Reward of a search's own forward less that of its discrete choice, in the last quarter of its looks.

    None for searches whose forward is discrete by construction (they have no loss), and for what ends in a mixture.
    """
    loss, reward = (chosen.history.get(name, []) for name in ("loss", "reward"))
    if not (loss and reward) or chosen.weights is not None:
        return None
    looks = [next(own) for _, own in groupby(zip(loss, reward, strict=True), key=lambda step: step[1])]
    return fmean(-at_look - found for at_look, found in looks[-max(1, len(looks) // 4) :])


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
    """Paired over the last looks, four or a quarter: both draws answered the same queries.

    Curves repeat a look until the next one.
    """
    reward, random = (chosen.history.get(name, []) for name in ("reward", "reward_random"))
    if not (reward and random):  # a search need not draw at random too
        return None
    looks = [pair for pair, _ in groupby(zip(reward, random, strict=True))]
    gains = [found - drawn for found, drawn in looks[-max(4, len(looks) // 4) :]]
    if len(gains) < 2 or fmean(gains) > 2 * stdev(gains) / len(gains) ** 0.5:
        return None
    return (
        f"The policy's reward is no better than that of random candidates (by {fmean(gains):+.3f} the last "
        f"{len(gains)} times that it was measured): the reward is too sparse, the steps are too few, or one candidate "
        "was already enough."
    )


def _mostly_empty(predictions: Sequence[Prediction]) -> str | None:
    empty = sum(not p.prediction.strip() for p in predictions)
    if 2 * empty <= len(predictions):
        return None
    return (
        f"Most answers ({empty} of {len(predictions)}) are empty: the model ends at once, or writes nothing but "
        "newlines; look at dataset.template, model.chat and model.chat_arguments (a thinking mode)."
    )


def _mostly_one_tag(predictions: Sequence[Prediction]) -> str | None:
    """What opens a thinking mode's answer; a tag that right answers begin with as well is none."""
    tags = Counter(match[1] for p in predictions if (match := _TAG.match(p.prediction)))
    tag, n = tags.most_common(1)[0] if tags else ("", 0)
    if 2 * n <= len(predictions) or any(answer.lstrip().startswith(tag) for p in predictions for answer in p.answers):
        return None
    return (
        f"Most answers ({n} of {len(predictions)}) begin with {tag}: the model thinks first, and answers are cut at "
        "the first newline; switch that off (model.chat=true +model.chat_arguments.enable_thinking=false, as the chat "
        "template names it) or end dataset.template.query behind it; more dataset.max_new_tokens do not help."
    )
