"""`python -m stv_exp.figures experiments/NAME [outputs]`: the tables of a study's README, made of the runs on disk.

`figures.yaml` of the folder names them. Each becomes a CSV, which README shows below a comment with its name, and
`figures.lock` says which runs it is of. READMEs of folders above show it by its path, as a study may another one's.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import pandas as pd
import yaml
from tabulate import tabulate

from stv_exp.artefacts.values import fits, named
from stv_exp.disk.files import checksum, write_text
from stv_exp.errors import StvError
from stv_exp.interruption import guarded
from stv_exp.ranges import NAME
from stv_exp.report import comparison, heads
from stv_exp.report.axes import Axes
from stv_exp.report.cells import is_number
from stv_exp.report.grouped import grouped
from stv_exp.report.page import write_picture
from stv_exp.report.pivot import completed, pivot
from stv_exp.report.printing import folder, written
from stv_exp.report.question import Question
from stv_exp.report.runs import Loaded, find, labelled
from stv_exp.report.screen import print_line
from stv_exp.report.tables import Table
from stv_exp.report.text import brief, markdown

if TYPE_CHECKING:  # tables need no pictures
    from matplotlib.figure import Figure as Picture

SPEC, LOCK, README = "figures.yaml", "figures.lock", "README.md"
_SHOWN = re.compile(r"(?m)^(<!-- ([\w./-]+\.csv) -->\n)(?:\|.*\n?)*")

_RUNS = {"study", "where"}
# What is read of a figure, by the first of these that it names; of none of them, a table along axes.
_READ = {
    "groups": {"groups", "costs"},
    "picture": {"picture", *_RUNS},
    "heads": {"heads", *_RUNS},
    "report": {"report", "against", *_RUNS},
}
_AXES = {"rows", "columns", "value", *_RUNS}

# With the signatures of its runs, and sentences on what is left out.
Made = tuple["Table | Picture", set[str], list[str]]


@dataclass(frozen=True)
class Runs:
    """Those of one study that fulfil every condition `key=value[,value]`."""

    study: str
    where: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Figure:
    """One table of `runs` along the axes of a report, or the one that a `report` or its `heads` has by that name.

    A report compares with the method `against`. Or a `picture` of the report, or a table of methods against `groups` of
    runs, with the costs of some of them.
    """

    runs: Runs | None = None
    rows: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    value: str = "accuracy"
    report: str = ""
    against: str | None = None
    picture: str = ""
    heads: str = ""
    groups: dict[str, Runs] = field(default_factory=dict)
    costs: list[str] = field(default_factory=list)


class Source:
    """The runs on disk, those of a study read once."""

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs
        self.found = cache(lambda study: find(outputs, study))

    def load(self, name: str, runs: Runs, axes: Axes | None = None) -> Loaded:
        """Those of a figure; raises `StvError` where there are none."""
        question = Question(where=tuple(runs.where), axes=axes or Axes())
        loaded = labelled(self.found(runs.study), question)
        if loaded.runs.empty:
            there = f"{self.outputs} has none that is finished"
            raise StvError(f"{name} needs runs of study {runs.study}, of which {there}; run it.")
        return loaded


def main() -> int:
    """Entry point: the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stv_exp.figures", description=__doc__)
    parser.add_argument("folder", type=folder, help=f"a study's folder with {SPEC} and {README}")
    parser.add_argument("outputs", nargs="?", default="outputs", type=folder, help="outputs folder (default: outputs)")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="NAMES", help="draw these: by_k,cost")
    given = parser.parse_args()
    return written(lambda: draw(given.folder, given.outputs, given.only), str(given.folder))


def draw(study: Path, outputs: Path, only: Collection[str] | None = None) -> None:
    """Write the CSVs, the lock and the tables of READMEs; raises `StvError` where a figure's runs are not there.

    With `only`, of the figures of these names; the others stay as they are.
    """
    source, asked = Source(outputs), figures(study)
    files = [_file(name, figure) for name, figure in asked.items()]
    if unknown := [name for name in only or [] if name not in asked]:
        raise StvError(f"--only {', '.join(unknown)} is not in {study / SPEC}; choose from {', '.join(asked)}.")
    chosen = {name: figure for name, figure in asked.items() if only is None or name in only}
    made = {_file(name, figure): _drawn(name, figure, source) for name, figure in chosen.items()}
    stays = [name for name in files if name not in made and (study / name).is_file()]
    readmes = _readmes(study, [*made, *stays])
    held = _lock(study) if only else {}
    lock = {name: held.get(name) for name in files if name in {*held, *made}}
    for name, (drawn, runs, _) in made.items():
        write_text(study / name, drawn.csv()) if isinstance(drawn, Table) else write_picture(study / name, drawn)
        lock[name] = {"sha256": checksum(study / name), "runs": " ".join(sorted(runs))}
    write_text(study / LOCK, yaml.safe_dump(lock, width=118, sort_keys=False))
    for readme, text in readmes.items():
        write_text(readme, with_tables(text, readme.parent))
    for note in dict.fromkeys(f"{name}: {note}" for name, (*_, notes) in made.items() for note in notes):
        print_line(f"note: {note}")
    print_line(f"Written to {study}: {', '.join(made)}, {LOCK}; {', '.join(map(str, readmes))}")


def _lock(study: Path) -> dict[str, Any]:
    """What is known of the figures as they are; raises `StvError` for a lock that is damaged."""
    try:
        found = yaml.safe_load(_text(study / LOCK)) if (study / LOCK).is_file() else {}
    except yaml.YAMLError as error:
        raise StvError(f"{study / LOCK} is damaged ({brief(error)}); put it back, or leave out --only.") from error
    return found if isinstance(found, dict) else {}


def _readmes(study: Path, made: Iterable[str]) -> dict[Path, str]:
    """Texts of the study's README and of those above that show a table of it by its path, as far up as there are some.

    Raises `StvError` before anything is written, where one cannot be read or shows a table that is not there.
    """
    written = {(study / name).resolve() for name in made}
    above = takewhile(Path.is_file, (folder / README for folder in study.resolve().parents))
    texts = {}
    for readme in (study / README, *above):
        text = _text(readme)
        shown = {name: (readme.parent / name).resolve() for _, name in _SHOWN.findall(text)}
        if (own := readme.parent == study) or written & {*shown.values()}:
            _check_there(readme, {name: path for name, path in shown.items() if path not in written}, own)
            texts[readme] = text
    return texts


def _check_there(readme: Path, others: Mapping[str, Path], own: bool) -> None:
    """Of what is not written now a README shows what is there; the study's own what another study has made."""
    gone = [name for name, path in sorted(others.items()) if (own and "/" not in name) or not path.is_file()]
    if gone:
        raise StvError(f"{readme} shows {', '.join(gone)}, which no {SPEC} has made; name it there, or leave it out.")


def _text(readme: Path) -> str:
    try:
        return readme.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StvError(f"{readme} is no UTF-8 text; save it as such.") from error


def figures(study: Path) -> dict[str, Figure]:
    """What `figures.yaml` asks for by name; raises `StvError` for what it does not understand."""
    path = study / SPEC
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {_name(name): _figure(entry) for name, entry in found.items()}
    except FileNotFoundError as error:
        raise StvError(f"{study} holds no {SPEC}; write one, as experiments/rivals has it.") from error
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise StvError(f"{path} cannot be read ({brief(error)}); write it as experiments/rivals has it.") from error


def with_tables(text: str, study: Path) -> str:
    """A README whose every comment `<!-- name.csv -->` has that CSV as a table below it."""
    return _SHOWN.sub(lambda found: found[1] + in_markdown(study / found[2]), text)


def in_markdown(path: Path) -> str:
    """A CSV as a Markdown table, numbers to the right."""
    headers, *rows = pd.read_csv(path, header=None, dtype=str, keep_default_na=False).to_numpy().tolist()
    sides = ["right" if all(map(is_number, column)) else "left" for column in zip(*rows, strict=True)]
    cells = [[markdown(cell) for cell in row] for row in [headers, *rows]]
    return tabulate(cells[1:], cells[0], "github", colalign=sides, disable_numparse=True) + "\n"


def _figure(entry: Mapping[str, Any]) -> Figure:
    own = dict(entry)
    kind = next((name for name in _READ if name in own), "")
    if idle := own.keys() - _READ.get(kind, _AXES):
        raise TypeError(f"a figure of {kind or 'rows and columns'} reads no {', '.join(sorted(map(str, idle)))}")
    if "study" in own:
        own["runs"] = _runs({key: own.pop(key) for key in _RUNS & own.keys()})
    groups = {name: _runs(runs) for name, runs in own.pop("groups", {}).items()}
    return Figure(**_typed(Figure, own), groups=groups)


def _runs(entry: Mapping[str, Any]) -> Runs:
    return Runs(**_typed(Runs, entry))


def _typed(kind: type, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a dataclass; raises `TypeError` for one that has another type there."""
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name in hints and not fits(value, hints[name]):
            raise TypeError(f"{name}: {brief(value)} is no {named(hints[name])}")
    return values


def _name(name: object) -> str:
    """That of a file in the study's own folder."""
    if not NAME.allows(str(name)):
        raise TypeError(f"{brief(name)} is no name of a figure: {NAME}")
    return str(name)


def _file(name: str, figure: Figure) -> str:
    return f"{name}.png" if figure.picture else f"{name}.csv"


def _drawn(name: str, figure: Figure, source: Source) -> Made:
    if figure.runs is None and not figure.groups:
        raise StvError(f"{name} in {SPEC} names no runs; give it a study, or groups of runs with a study each.")
    if figure.runs is None:
        groups = {group: source.load(name, runs) for group, runs in figure.groups.items()}
        table, notes = grouped(name, groups, figure.costs)
        return table, _signatures(*groups.values()), [*notes, *(note for own in groups.values() for note in own.notes)]
    loaded = source.load(name, figure.runs, Axes(tuple(figure.rows), tuple(figure.columns), values=(figure.value,)))
    draw = _picture if figure.picture else _table
    drawn, notes = draw(name, figure, loaded, source.outputs)
    return drawn, _signatures(loaded), [*notes, *loaded.notes]


def _picture(name: str, figure: Figure, loaded: Loaded, outputs: Path) -> tuple[Picture, list[str]]:
    from stv_exp.report.gallery import gallery  # which draws

    pictures, notes = gallery(loaded.runs, outputs)
    if figure.picture not in pictures:
        raise StvError(f"{name} has no picture {figure.picture}; choose from {', '.join(pictures)}.")
    return pictures[figure.picture], notes


def _table(name: str, figure: Figure, loaded: Loaded, outputs: Path) -> tuple[Table, list[str]]:
    if not figure.heads and not figure.report:
        return pivot(loaded.runs, completed(loaded.axes, loaded.runs), *loaded.axes.values)
    if figure.heads:
        tables, notes = heads.tables(loaded.runs, outputs, name)
    else:
        tables, notes = comparison.tables(loaded, name, figure.against)
    by_name = {table.name: table for table in tables}
    if (asked := figure.heads or figure.report) not in by_name:
        raise StvError(f"{name} has no table {asked}; choose from {', '.join(by_name)}.")
    return by_name[asked], notes


def _signatures(*groups: Loaded) -> set[str]:
    return {str(run) for loaded in groups for run in loaded.runs["run"]}


if __name__ == "__main__":
    sys.exit(guarded(main))
