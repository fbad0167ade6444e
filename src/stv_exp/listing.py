"""`python -m stv_exp list models|datasets|tasks|methods|metrics|settings`: what there is to choose from, a line each.

`python -m stv_exp list settings --markdown` is `docs/settings.md`.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from stv_exp.check_config import LIMITS
from stv_exp.cli import configure
from stv_exp.compose import config_folder
from stv_exp.data.loader import task_names
from stv_exp.metrics import METRICS
from stv_exp.report.printing import printed

_KINDS_OF_VALUES: dict[Any, str] = {
    bool: "true or false",
    str: "a text",
    str | None: "a text, or null",
    list[str]: "a list of texts",
    list[int]: "a list of whole numbers",
    Any: "names with values, or null",
}
Line = tuple[str, str]  # a name and what it is


def main() -> int:
    """Entry point: the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stv_exp list", description="What there is to choose from.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--markdown", action="store_true", help="settings as docs/settings.md has them")
    given = parser.parse_args()
    if given.markdown and given.kind != "settings":
        parser.error("--markdown writes settings alone: list settings --markdown")
    return printed(lambda: show(given.kind, given.markdown), "the list")


def show(kind: str, markdown: bool = False) -> None:
    """Print a list, names beside what they are."""
    if markdown:
        print(settings_page(), end="")
        return
    lines = list(KINDS[kind]())
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print(f"{name:<{width}}  {text}".rstrip())


def _group(group: str) -> Callable[[], Iterator[Line]]:
    """The files of a folder of `conf/`, each with the comment at its top."""

    def lines() -> Iterator[Line]:
        for path in sorted((Path(config_folder()) / group).glob("*.yaml")):
            yield path.stem, _first_comment(path)

    return lines


def _first_comment(path: Path) -> str:
    """The first sentence of a file's first comment, which may go on over lines."""
    comment = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return " ".join(comment)


def _tasks() -> Iterator[Line]:
    """The tasks of each dataset that has some to choose from; what the others call theirs."""
    for path in sorted((Path(config_folder()) / "dataset").glob("*.yaml")):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        yield path.stem, ", ".join(task_names(config["loader"]) or [config["task"]])


def _metrics() -> Iterator[Line]:
    for name, metric in METRICS.items():
        yield name, (inspect.getdoc(metric) or "").split("\n")[0]


def _settings() -> Iterator[Line]:
    for key, value, allowed in _flat(configure()):
        yield key, f"{_shown(value)}  ({allowed})"


KINDS: dict[str, Callable[[], Iterator[Line]]] = {
    "models": _group("model"),
    "datasets": _group("dataset"),
    "tasks": _tasks,
    "methods": _group("method"),
    "experiments": _group("experiment"),
    "metrics": _metrics,
    "settings": _settings,
}


def settings_page() -> str:
    """Every setting as Markdown: what its section is about, its value where nothing is said, and what it may be."""
    head = (
        "# Settings\n\nMade from the schema by `python -m stv_exp list settings --markdown`. Values are those of\n"
        "`python -m stv_exp` without arguments; choices of model, dataset and method bring their own.\n"
    )
    return "\n".join([head, *_sections(configure(), "")])


def _sections(config: Any, prefix: str) -> Iterator[str]:
    """A section, then those inside it."""
    yield f"## {prefix.rstrip('.') or 'Job'}\n\n{inspect.getdoc(type(config))}\n"
    yield "| setting | value | may be |\n|---|---|---|"
    for key, value, allowed in _own(config, prefix):
        yield f"| `{key}` | {_code(value)} | {_cell(allowed)} |"
    yield ""
    for name, section in _inner(config):
        yield from _sections(section, f"{prefix}{name}.")


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    yield from _own(config, prefix)
    for name, section in _inner(config):
        yield from _flat(section, f"{prefix}{name}.")


def _own(config: Any, prefix: str) -> Iterator[tuple[str, Any, str]]:
    """Key, value and what it may be, of the settings of a section."""
    hints = get_type_hints(type(config))
    inner = [name for name, _ in _inner(config)]
    for name in (field.name for field in fields(config) if field.name not in inner):
        key = prefix + name
        yield key, getattr(config, name), str(LIMITS.get(key) or _KINDS_OF_VALUES[hints[name]])


def _inner(config: Any) -> list[tuple[str, Any]]:
    return [(f.name, section) for f in fields(config) if is_dataclass(section := getattr(config, f.name))]


def _shown(value: object) -> str:
    """As one would type it in YAML, on one line."""
    style = '"' if isinstance(value, str) and "\n" in value else None
    text: str = yaml.safe_dump(value, default_flow_style=True, default_style=style, width=10_000)
    return text.removesuffix("...\n").strip()


def _code(value: object) -> str:
    return f"`{_cell(_shown(value))}`"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
