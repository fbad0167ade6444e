"""`+experiment=check_data`: what a dataset holds, a sheet of its first examples, and what is missing."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from stv_exp.config import Config
from stv_exp.data.broken import listed
from stv_exp.data.loader import load_task
from stv_exp.data.task import Example, Task
from stv_exp.disk.files import replaced_file
from stv_exp.errors import StvError, printable
from stv_exp.report.sheet import image_sheet

SHOWN = 8  # examples of each split on the sheet
TOP = 5  # answers in the table


@dataclass(frozen=True)
class Contents:
    """What a split holds: its examples, those whose pictures open, the pictures' sizes and the sentences of the rest.

    A size is (width, height) in pixels after decoding.
    """

    split: str
    examples: tuple[Example, ...]
    whole: tuple[Example, ...]
    sizes: tuple[tuple[int, int], ...]
    broken: tuple[str, ...]


def check_data(config: Config) -> Path:
    """Print counts and answers of `config.dataset` and write its image sheet, whose path is returned.

    Every picture of the splits is decoded once, and whatever is broken is listed, not the first alone. Raises
    `StvError` where the dataset cannot be loaded, with what to download, and after the list.
    """
    # Answers and file names are shown as they are, also where they look like rich's markup.
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False, highlight=False)
    with listed() as broken:
        try:
            task = load_task(config)
        except StvError:  # so many are broken that too few are left, or a file is as a whole
            _list(console, broken)
            raise
    parts = {"support": task.support, "validation": task.validation, "eval": task.evaluation}
    splits = [_contents(split, examples) for split, examples in parts.items() if examples or split != "validation"]
    console.print(_counts(task, splits))
    console.print(_answers(task))
    path = _sheet_path(config)
    if shown := [example for split in splits for example in split.whole[:SHOWN]]:
        with replaced_file(path) as new:
            image_sheet(shown).save(new, "PNG")
        _say(console, f"Written to {path}: the first examples of each split")
    total = len(broken) + sum(len(split.examples) for split in splits)
    broken += [sentence for split in splits for sentence in split.broken]
    _list(console, broken)
    if broken and not config.dataset.skip_broken:
        raise StvError(
            f"{len(broken)} of {total} examples of {task.name} are broken, the first because: "
            f"{broken[0].rstrip('.')}; correct what is listed or set dataset.skip_broken=true."
        )
    _say(console, f"{len(broken)} broken examples are left out." if broken else "Nothing is missing.")
    return path


def _list(console: Console, sentences: Sequence[str]) -> None:
    for sentence in sentences:
        _say(console, f"- {sentence}")


def _say(console: Console, text: str) -> None:
    console.print(printable(text), soft_wrap=True)


def _contents(split: str, examples: tuple[Example, ...]) -> Contents:
    whole: list[Example] = []
    sizes: list[tuple[int, int]] = []
    broken: list[str] = []
    silent = not sys.stderr.isatty()
    title, console = f"Opening the pictures of {split}", Console(stderr=True)
    for example in track(examples, title, console=console, transient=True, disable=silent):
        try:
            sizes += [image.size for image in example.pictures]
            whole.append(example)
        except StvError as error:
            broken.append(str(error))
    return Contents(split, examples, tuple(whole), tuple(sizes), tuple(broken))


def _counts(task: Task, splits: Sequence[Contents]) -> Table:
    table = Table(title=printable(task.name))
    for header in ("split", "examples", "pictures", "sizes (pixels)", "broken", "different answers"):
        table.add_column(header, justify="left" if header == "split" else "right")
    for split in splits:
        pictures = sum(len(example.images) for example in split.examples)
        answers = len({example.answers[0] for example in split.examples})
        counts = (len(split.examples), pictures, _sizes(split.sizes), len(split.broken), answers)
        table.add_row(split.split, *map(str, counts))
    return table


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    if not sizes:
        return "-"
    small, large = (extreme(sizes, key=lambda size: size[0] * size[1]) for extreme in (min, max))
    return " to ".join(dict.fromkeys(f"{width}x{height}" for width, height in (small, large)))


def _answers(task: Task) -> Table:
    """The most frequent first answers of support and eval together."""
    found = [Counter(e.answers[0] for e in examples) for examples in (task.support, task.evaluation)]
    known = f"{len(task.labels)} labels" if task.labels else "open answers"
    table = Table()
    table.add_column(f"{TOP} most frequent of {known}", no_wrap=True)
    for split in ("support", "eval"):
        table.add_column(split, justify="right")
    for answer, _ in sum(found, Counter()).most_common(TOP):
        table.add_row(printable(answer), *(f"{count[answer]} ({count[answer] / count.total():.0%})" for count in found))
    return table


def _sheet_path(config: Config) -> Path:
    folder = Path(config.outputs, "check_data")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / (re.sub(r"[^\w.-]+", "-", f"{config.dataset.name}-{config.dataset.task}") + ".png")
