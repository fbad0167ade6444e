"""N-way episodes over labelled pictures: some of each class with their letters, then a query and its options.

The text is that of MTV's code (Huang et al., NeurIPS 2024). A dataset's module reads its pictures as one example each
(`picture_example`), and `episode_task` makes the task of them: episodes drawn here, published ones, or plain naming.
"""

from __future__ import annotations

import logging
import random
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from stv_exp.config import DatasetConfig, EpisodeConfig
from stv_exp.data.broken import sound
from stv_exp.data.entry import Entry
from stv_exp.data.files import expanded, parse_json, root_folder, subset
from stv_exp.data.images import picture, readable
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError

LETTERS = string.ascii_uppercase
_PICTURES, _LABELS = ("pos", "neg", "query"), ("pos_label", "neg_label")
_COLUMNS = (*_PICTURES, *_LABELS)
Load = Callable[[], Image.Image]
Row = dict[str, str]
T = TypeVar("T")

log = logging.getLogger(__name__)


def picture_example(identity: str, path: Path, label: str, config: DatasetConfig) -> Example:
    """One labelled picture, asked for the name of its class."""
    question = f"<image>What is the type of {config.episode.noun} in the image? Answer:"
    return Example(identity, (picture(path),), question, (label,))


def episode_task(config: DatasetConfig, pictures: Callable[[str], Sequence[Example]]) -> Task:
    """The task that `config.episode` asks for; `pictures` reads all labelled pictures of a split.

    Of episodes drawn here no picture is in both splits, and no support query is an example, so that no demonstration
    shows a query's answer. Options and answers are in each example's question and answers, which predictions record.
    Raises `StvError` where classes or pictures are too few, and on settings that do not go together.
    """
    _check(config)
    name = f"{config.name}/{config.task}"
    if config.episode.annotations:
        support, evaluation = _published(config)
        return Task(name, support, evaluation, tuple(LETTERS[:2]))
    both = [readable(pictures(split), config.skip_broken) for split in (config.support_split, config.eval_split)]
    if config.episode.disjoint_classes:
        both = _disjoint(*both)
    if not config.episode.options:
        support = subset(both[0], config.support, config.support_split, config)
        evaluation = subset(both[1], config.eval, config.eval_split, config)
        return Task(name, support, evaluation, tuple(_classes(both[0] + both[1])))
    support = _support_episodes(both[0], config)
    evaluation = _eval_episodes(both[1], config)
    return Task(name, support, evaluation, tuple(LETTERS[: config.episode.ways]))


def _check(config: DatasetConfig) -> None:
    episode = config.episode
    if episode.annotations and episode != EpisodeConfig(annotations=episode.annotations, noun=episode.noun):
        raise StvError(
            "dataset.episode.annotations has episodes of 2 ways and 1 shot with options; leave ways, shots, options "
            "and disjoint_classes of dataset.episode at their defaults."
        )
    if config.support_split == config.eval_split and not episode.disjoint_classes:
        raise StvError(
            f"dataset.support_split and dataset.eval_split are both {config.eval_split}; choose two splits, "
            "or set dataset.episode.disjoint_classes=true."
        )
    if not episode.options and config.metric == "choice":
        raise StvError(
            "dataset.metric=choice reads a letter, and dataset.episode.options=false asks for a name; "
            "set dataset.metric=exact_match."
        )
    if episode.options and not 2 <= episode.ways <= len(LETTERS):
        raise StvError(f"dataset.episode.ways={episode.ways} cannot be lettered; it must lie in 2-{len(LETTERS)}.")


def _classes(pictures: Iterable[Example]) -> list[str]:
    return sorted({p.answers[0] for p in pictures})


def _disjoint(support: tuple[Example, ...], evaluation: tuple[Example, ...]) -> list[tuple[Example, ...]]:
    """Pictures of one seeded half of the classes for support, of the other half for eval."""
    names = _classes(support + evaluation)
    random.Random("classes").shuffle(names)
    half = set(names[: len(names) // 2])
    return [
        tuple(p for p in support if p.answers[0] in half),
        tuple(p for p in evaluation if p.answers[0] not in half),
    ]


def _support_episodes(pictures: Sequence[Example], config: DatasetConfig) -> tuple[Example, ...]:
    """Episodes whose examples are nobody's query: each class keeps its last pictures for that."""
    _check_classes(pictures, config.support_split, config)
    kept = max(config.episode.shots, 1)
    left = Counter(p.answers[0] for p in pictures)
    askable = []
    for candidate in pictures:
        left[candidate.answers[0]] -= 1
        if left[candidate.answers[0]] >= kept:
            askable.append(candidate)
    queries = subset(askable, config.support, config.support_split, config)
    asked = {q.id for q in queries}
    return _episodes(queries, [p for p in pictures if p.id not in asked], config.support_split, config)


def _eval_episodes(pictures: Sequence[Example], config: DatasetConfig) -> tuple[Example, ...]:
    """Episodes whose examples are any others of the split: no eval episode is ever a demonstration."""
    _check_classes(pictures, config.eval_split, config)
    queries = subset(pictures, config.eval, config.eval_split, config)
    return _episodes(queries, pictures, config.eval_split, config)


def _check_classes(pictures: Sequence[Example], split: str, config: DatasetConfig) -> None:
    ways, shots = config.episode.ways, config.episode.shots
    sizes = Counter(p.answers[0] for p in pictures)
    if ways > len(sizes):
        raise StvError(
            f"The {split} split of {config.name} has {len(sizes)} classes, fewer than dataset.episode.ways={ways}; "
            "lower it."
        )
    name, size = min(sizes.items(), key=lambda item: item[1])
    if size < shots + 1:
        raise StvError(
            f"Class {name!r} has {size} pictures in the {split} split of {config.name}, fewer than "
            f"dataset.episode.shots={shots} and a query; lower the shots."
        )


def _episodes(
    queries: Sequence[Example], pictures: Iterable[Example], split: str, config: DatasetConfig
) -> tuple[Example, ...]:
    """One episode a query; each letter is right equally often, give or take one."""
    by_class: dict[str, list[Example]] = {}
    for p in pictures:
        by_class.setdefault(p.answers[0], []).append(p)
    return tuple(_episode(q, i % config.episode.ways, by_class, split, config) for i, q in enumerate(queries))


def _episode(
    query: Example, place: int, by_class: dict[str, list[Example]], split: str, config: DatasetConfig
) -> Example:
    """The query's class at option `place` among others drawn by seed; pictures by rounds of one a class, A first.

    In the letters' order, and not with the query's class first as in MTV's files, the order tells nothing.
    """
    episode, label = config.episode, query.answers[0]
    pick = random.Random(f"{split}/{query.id}")
    names = _sample_without(pick, list(by_class), label, episode.ways - 1)
    names.insert(place, label)
    drawn = [_sample_without(pick, by_class[name], query, episode.shots) for name in names]
    shown = [(letter, p.images[0]) for turn in zip(*drawn, strict=True) for letter, p in enumerate(turn)]
    return _render(query.id, episode.noun, names, shown, (place, query.images[0]))


def _sample_without(pick: random.Random, among: Sequence[T], left_out: T, n: int) -> list[T]:
    """`n` of `among` other than `left_out`, without a look at all of them."""
    drawn = [x for x in pick.sample(among, min(n + 1, len(among))) if x != left_out]
    return drawn[:n]


def _render(
    identity: str, noun: str, names: Sequence[str], shown: Sequence[tuple[int, Load]], query: tuple[int, Load]
) -> Example:
    """An episode as one example; `shown` and `query` are pictures with the index of their class in `names`."""
    options = " ".join(f"{letter}.{name}" for letter, name in zip(LETTERS, names, strict=False))
    asked = (
        f"<image>What is the type of {noun} in the image? {options}\n"
        "Answer with the option's letter from the given choice directly. Answer:"
    )
    text = "".join(f"{asked} {LETTERS[place]}\n" for place, _ in shown) + asked
    return Example(identity, tuple(load for _, load in (*shown, query)), text, (LETTERS[query[0]],))


def _published(config: DatasetConfig) -> list[tuple[Example, ...]]:
    """Support and eval episodes of MTV's files, whose flaws are reported and kept."""
    splits = (config.support_split, config.eval_split)
    rows = {split: _rows(_annotations(config, split), split, config) for split in splits}
    root = root_folder(config.root, ["the pictures that dataset.episode.annotations names"], config.name)
    _report_flaws(rows, config)
    chosen = []
    for split, n in zip(splits, (config.support, config.eval), strict=True):
        episodes = [_published_episode(identity, row, root, config) for identity, row in rows[split].items()]
        chosen.append(readable(subset(episodes, n, split, config), config.skip_broken))
    return chosen


def _annotations(config: DatasetConfig, split: str) -> Path:
    """The one file for a split: `train.json`, or `flower_train.json` as MTV calls it."""
    folder = expanded(config.episode.annotations)
    found = sorted(folder.glob(f"*{split}.json"))
    if len(found) != 1:
        raise StvError(
            f"dataset.episode.annotations={config.episode.annotations} has {len(found)} files *{split}.json; "
            "point it at a folder with one for each split."
        )
    return found[0]


def _rows(path: Path, split: str, config: DatasetConfig) -> dict[str, Row]:
    """Episodes by their ids, which are their places in the file."""
    rows = parse_json(path)
    if not isinstance(rows, list) or not rows:
        raise StvError(f"{path} is no list of episodes; it needs objects with {', '.join(_COLUMNS)}.")

    def make(item: tuple[int, Any]) -> tuple[str, Row]:
        entry = Entry.of(item[1], item[0], path)
        row = {key: entry.path(key) for key in _PICTURES} | {key: entry.text(key) for key in _LABELS}
        return f"{split}-{item[0]}", row

    return dict(sound(enumerate(rows, 1), make, itemgetter(0), path, config))


def _report_flaws(rows: dict[str, dict[str, Row]], config: DatasetConfig) -> None:
    own = sum(row["query"] == row["pos"] for part in rows.values() for row in part.values())
    shown = ({row[key] for row in part.values() for key in _PICTURES} for part in rows.values())
    shared = set[str].intersection(*shown)
    if own or shared:
        log.warning(
            "The published episodes in %s have %d queries that are their own positive example and %d pictures that "
            "both %s show; their accuracy is for comparison with published numbers only.",
            config.episode.annotations,
            own,
            len(shared),
            " and ".join(rows),
        )


def _published_episode(identity: str, row: Row, root: Path, config: DatasetConfig) -> Example:
    """Positive, negative, query, as MTV shows them; a seeded coin puts the query's class at A or B."""
    place = random.Random(identity).randrange(2)
    names = [row["neg_label"]]
    names.insert(place, row["pos_label"])
    positive, negative, query = (picture(root / row[key]) for key in _PICTURES)
    return _render(identity, config.episode.noun, names, [(place, positive), (1 - place, negative)], (place, query))
