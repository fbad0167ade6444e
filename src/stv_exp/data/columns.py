"""`dataset=hub`: any dataset of the package `datasets`, its columns named by `dataset.fields`.

`dataset.root` is a hub id, a folder of files that `load_dataset` understands, or one that `save_to_disk` wrote;
`dataset.task` is its configuration (subset), or `default`. Code that comes with a dataset is never run.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import Any

from PIL import Image

from stv_exp.config import DatasetConfig
from stv_exp.data.broken import sound
from stv_exp.data.cells import cell_picture, first_line
from stv_exp.data.entry import ADVICE, Entry, inside, path_of
from stv_exp.data.files import expanded, is_folder, known_split
from stv_exp.data.images import readable
from stv_exp.data.task import Example, Task, most_frequent_first
from stv_exp.errors import StvError
from stv_exp.network import cache_if_offline

READS = ("root", "support_split", "eval_split", "streaming", "fields", "skip_broken")

BUFFER = 1_000  # rows that a stream is shuffled within
_SAVED = ("state.json", "dataset_dict.json")  # what `save_to_disk` leaves
Dataset = Any  # a `Dataset`, or with streaming an `IterableDataset`


@dataclass(frozen=True)
class Row:
    """One row of a split. `text` holds the question and answer; `read` gives any column, pictures undecoded.

    A column that is in `single` has one picture a row, so that its cells need not be read to know.
    """

    id: str
    text: Mapping[str, Any]
    read: Callable[[str], Any]
    single: frozenset[str] = frozenset()


def load(config: DatasetConfig) -> Task:
    """A seeded choice of `config.support` and `config.eval` rows; two halves of one split where both name the same.

    With `config.streaming` they are the first rows of a stream that is shuffled within a buffer of `BUFFER` rows.
    Raises `StvError` where the package, the dataset, a split or a column is missing, or a row has no answer.
    """
    splits = _splits(config)
    for split in (config.support_split, config.eval_split):
        known_split(split, splits, config)
    labels = _labels(splits[config.support_split], config)
    support, evaluation = (
        readable(
            sound(rows, partial(_example, labels, config), attrgetter("id"), config.root, config), config.skip_broken
        )
        for rows in _chosen(splits, config)
    )
    return Task(f"{config.name}/{config.task}", support, evaluation, labels)


def _splits(config: DatasetConfig) -> dict[str, Dataset]:
    """Every split by name, opened and not read."""
    datasets = _package()
    folder = expanded(config.root)
    if not config.root or (not is_folder(folder) and (folder.exists() or config.root.startswith((".", "/", "~")))):
        raise StvError(f"dataset.root={config.root!r} is no folder and no hub id; set it to one of the two.")
    with _explained(config), cache_if_offline():
        if any((folder / name).is_file() for name in _SAVED):
            found = datasets.load_from_disk(str(folder))
            # A format that was saved with it would turn texts into arrays and hide columns.
            found = found.with_format(None)
        else:
            root = str(folder) if is_folder(folder) else config.root
            subset = None if config.task == "default" else config.task
            found = datasets.load_dataset(root, subset, streaming=config.streaming)
    return found if isinstance(found, dict) else {str(found.split or "train"): found}


def _package() -> Any:
    import datasets  # here, as it takes a second

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets


def _chosen(splits: dict[str, Dataset], config: DatasetConfig) -> tuple[Sequence[Row], Sequence[Row]]:
    """The support and eval rows, disjoint also where they come from one split."""
    a, b = config.support_split, config.eval_split
    both = config.support + config.eval if a == b else 0
    if hasattr(splits[a], "__len__"):  # on disk, with dataset.streaming too where it was saved
        support = _draw(splits[a], a, max(config.support, both), config)[: config.support]
        # From the other end: neither choice depends on the size of the other.
        return support, _draw(splits[b], b, max(config.eval, both), config, last=True)[: config.eval]
    if both:
        rows = _stream(splits[a], a, both, config)
        return rows[: config.support], rows[config.support :]
    return _stream(splits[a], a, config.support, config), _stream(splits[b], b, config.eval, config)


def _draw(dataset: Dataset, split: str, n: int, config: DatasetConfig, last: bool = False) -> list[Row]:
    """The first or last `n` of a split's shuffled rows; their pictures stay on disk."""
    _check(dataset.column_names, len(dataset), split, n, config)
    indices = list(range(len(dataset)))
    random.Random(0).shuffle(indices)
    indices = (indices[::-1] if last else indices)[:n]
    paths = _paths(dataset.column_names, config)
    with _explained(config):
        columns = dataset.select_columns([*dict.fromkeys(path[0] for path in paths.values())]).select(indices)[:]
    undecoded, schema = dataset.with_format("arrow"), dataset.features.arrow_schema
    single = frozenset(name for name in _image_columns(config) if not hasattr(schema.field(name).type, "value_type"))
    texts = ({name: inside(columns[first][i], keys) for name, (first, *keys) in paths.items()} for i in range(n))
    return [
        Row(f"{split}-{index}", text, partial(_cell, undecoded, index), single)
        for index, text in zip(indices, texts, strict=True)
    ]


def _stream(dataset: Dataset, split: str, n: int, config: DatasetConfig) -> list[Row]:
    """The first `n` rows of a shuffled stream, pictures as encoded bytes; `BUFFER` more are fetched."""
    with _explained(config):
        stream = dataset.decode(False).shuffle(seed=0, buffer_size=BUFFER)
        rows = list(islice(stream, n))
    _check(list(rows[0]) if rows else _columns(config), len(rows), split, n, config)
    paths = _paths(list(rows[0]), config)
    texts = ({name: inside(row[first], keys) for name, (first, *keys) in paths.items()} for row in rows)
    return [Row(f"{split}-{i}", text, row.__getitem__) for i, (text, row) in enumerate(zip(texts, rows, strict=True))]


def _cell(dataset: Dataset, index: int, column: str) -> Any:
    return dataset[index][column][0].as_py()


def _check(there: Sequence[str], size: int, split: str, n: int, config: DatasetConfig) -> None:
    if missing := [name for name in _columns(config) if path_of(name, there)[0] not in there]:
        raise StvError(
            f"Split {split} of {config.root} has no column {missing[0]!r}; set dataset.fields to some of its columns, "
            f"which are {', '.join(there)}."
        )
    if size < n:
        raise StvError(
            f"Split {split} of {config.root} has {size} rows, fewer than the {n} asked for; lower dataset.support or "
            "dataset.eval."
        )


def _columns(config: DatasetConfig) -> list[str]:
    """The columns that the mapping needs, all but the pictures' optional."""
    fields = config.fields
    return [*_image_columns(config), *([fields.question] if fields.question else []), fields.answer]


def _paths(there: Sequence[str], config: DatasetConfig) -> dict[str, list[str]]:
    """The column of each text field, and the keys inside it."""
    return {name: path_of(name, there) for name in (config.fields.question, config.fields.answer) if name}


def _image_columns(config: DatasetConfig) -> list[str]:
    return [name.strip() for name in config.fields.image.split(",") if name.strip()]


def _labels(dataset: Dataset, config: DatasetConfig) -> tuple[str, ...]:
    """Names of integer answers: the mapping's, or those that the dataset's features bring."""
    feature = (dataset.features or {}).get(config.fields.answer)  # a stream may not know its features
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return tuple(config.fields.labels or names or ())


def _example(labels: tuple[str, ...], config: DatasetConfig, row: Row) -> Example:
    column = config.fields.question
    question = Entry(f"Row {row.id} of {config.root}", row.text).text(column) if column else ""
    return Example(row.id, tuple(_pictures(row, config)), question, _answers(row, labels, config))


def _answers(row: Row, labels: tuple[str, ...], config: DatasetConfig) -> tuple[str, ...]:
    column = config.fields.answer
    value = row.text[column]
    answers = [_answer(v, row, labels, config) for v in (value if isinstance(value, list) else [value])]
    if not (filled := tuple(a for a in answers if a)):
        raise StvError(f"Row {row.id} of {config.root} has no answer in column {column!r}; choose a labelled split.")
    return most_frequent_first(filled)


def _answer(value: Any, row: Row, labels: tuple[str, ...], config: DatasetConfig) -> str:
    if value is None or isinstance(value, str):
        return (value or "").strip()
    where = f"Row {row.id} of {config.root} has {value!r} in column {config.fields.answer!r}"
    if not isinstance(value, int | float) or not math.isfinite(value):
        column = config.fields.answer.partition(".")[0]
        key = f", such as {column}.{next(iter(value))}" if isinstance(value, dict) and value else ""
        raise StvError(f"{where}, which is no text, number or list of them; point dataset.fields.answer at one{key}.")
    if not labels:
        return str(value)
    if value not in range(len(labels)):
        raise StvError(f"{where}, but there are {len(labels)} labels; choose a labelled split or name all labels.")
    return labels[int(value)]


def _pictures(row: Row, config: DatasetConfig) -> Iterator[Callable[[], Image.Image]]:
    """A handle for each picture of the row; a column may hold one or a list."""
    for column in _image_columns(config):
        read = partial(row.read, column)
        value = None if column in row.single else read()
        if value == []:
            raise StvError(f"Row {row.id} of {config.root} has no picture in column {column!r}; {ADVICE}.")
        for i in range(len(value) if isinstance(value, list) else 1):
            yield partial(
                cell_picture, f"{config.root} ({config.task}) row {row.id} column {column}", read, i, config.root
            )


@contextmanager
def _explained(config: DatasetConfig) -> Iterator[None]:
    """Turn whatever the package raises in the block into one sentence."""
    try:
        yield
    except Exception as error:  # its HTTP library's errors too
        raise StvError(_sentence(error, config)) from error


def _sentence(error: Exception, config: DatasetConfig) -> str:
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    reason = first_line((error.__cause__ or error) if isinstance(error, DatasetGenerationError) else error)
    if isinstance(error, ConnectionError):
        return (
            f"dataset.root={config.root} cannot be fetched: the hub cannot be reached ({reason}); copy it to a folder."
        )
    if isinstance(error, DatasetNotFoundError):
        return f"dataset.root={config.root} is not on the hub or is private; check it, or log in with `hf auth login`."
    if "BuilderConfig" in reason or "Config name" in reason:
        return f"dataset.task={config.task} is no configuration of {config.root} ({reason}); choose one there is."
    return f"dataset.root={config.root} cannot be loaded as a dataset ({reason}); correct its files or the setting."
