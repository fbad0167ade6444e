"""Official dataset files: found below `dataset.root`, read, and refused by name where something is wrong."""

from __future__ import annotations

import codecs
import json
import os
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any, TypeVar

from stv_exp.config import DatasetConfig
from stv_exp.data.broken import sound
from stv_exp.data.entry import Entry
from stv_exp.errors import StvError

T = TypeVar("T")
R = TypeVar("R")

DOWNLOADS = {
    "vizwiz": "'VizWiz-VQA' annotations and images",
    "okvqa": "'OK-VQA' questions and annotations and 'COCO 2014' train and val images",
    "vqa_jsonl": "the converted annotations of the Qwen-VL or MTV code and the images that they name",
    "dtd": "'Describable Textures Dataset (DTD)' images and labels",
    "flowers": "'102 Category Flower Dataset (Oxford Flowers-102)' images, image labels and data splits",
    "cub": "'Caltech-UCSD Birds-200-2011 (CUB-200-2011)'",
}


def required(root: str, paths: dict[str, str], dataset: str) -> dict[str, Path]:
    """The files and folders of `paths` (key -> path below `root`, which may be a glob) as absolute or relative paths.

    A glob needs one match and gives the folder before its first wildcard. Raises one `StvError` with all that is
    missing, where it goes and what to download; also where `root` is empty or no folder.
    """
    folder = root_folder(root, paths.values(), dataset)
    missing = [path for path in dict.fromkeys(paths.values()) if next(folder.glob(path), None) is None]
    if missing:
        raise StvError(f"dataset={dataset} needs {_listed(missing)} below dataset.root={root}; {_advice(dataset)}")
    return {key: folder / _before_wildcards(path) for key, path in paths.items()}


def root_folder(root: str, paths: Iterable[str], dataset: str) -> Path:
    """`dataset.root` as a folder; raises `StvError` with the `paths` that go below it where it is empty or none."""
    folder = expanded(root)
    if root and is_folder(folder):
        return folder
    wrong = f"dataset.root={root} is no folder" if root else "dataset.root is not set"
    raise StvError(
        f"{wrong}, and dataset={dataset} needs {_listed(list(dict.fromkeys(paths)))} below it; {_advice(dataset)}"
    )


def expanded(path: str) -> Path:
    """`path` with the home that `~` or `~user` stands for; as it is where there is no such user."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (pathlib's raises)


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; also a path that no system could hold is none."""
    return os.path.isdir(path)  # noqa: PTH112 (pathlib's raises where the path is too long)


def check_file(path: Path) -> None:
    """Raise `StvError` where something other than a file lies at `path`: a pipe would wait for a writer for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise StvError(f"{path} cannot be read ({error}); check that it is there and readable.") from error
    if not S_ISREG(mode):
        raise StvError(f"{path} cannot be read (it is no file); put the file there or remove its example.")


def known_split(split: str, there: Iterable[str], config: DatasetConfig) -> str:
    """`split`, where it is one of those `there`; else `StvError` with all of them."""
    there = sorted(there)
    if split not in there:
        raise StvError(
            f"{_key(split, config)}_split={split!r} is no split of dataset={config.name}; choose one of "
            f"{', '.join(there)}."
        )
    return split


def parse_json(path: Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Parse a JSON file; `hook` replaces each object as it is read. Raises `StvError` with file, line and column."""
    try:
        return json.loads(_text(path), object_hook=hook)
    except json.JSONDecodeError as error:
        raise StvError(
            f"{path} is no JSON at line {error.lineno}, column {error.colno} ({error.msg}); download it again."
        ) from error
    except (ValueError, RecursionError) as error:
        raise StvError(f"{path} is no JSON that can be read ({_parser(error)}); download it again.") from error


def entries(
    rows: Any, make: Callable[[Entry], R], key: Callable[[R], Hashable], path: Path, config: DatasetConfig
) -> list[R]:
    """What `make` makes of each object of the list `rows`, which `path` holds; see `sound` for broken ones."""
    if not isinstance(rows, list):
        raise StvError(f"{path} holds no list of entries; download it again.")
    return sound(enumerate(rows, 1), lambda item: make(Entry.of(item[1], item[0], path)), key, path, config)


def numbered_lines(path: Path) -> list[tuple[int, bytes]]:
    """Lines as they are, from 1; blank ones at the end are none. Raises `StvError` where the file holds nothing."""
    content = _bytes(path).removeprefix(codecs.BOM_UTF8).rstrip()
    if not content:
        raise StvError(f"{path} is empty; download it again.")
    return list(enumerate(content.split(b"\n"), 1))


def line_text(path: Path, number: int, line: bytes) -> str:
    """A line as text without its end; raises `StvError` with the file and the line that is blank or no UTF-8."""
    try:
        text = line.decode().rstrip()
    except UnicodeDecodeError as error:
        raise StvError(f"{path} is no UTF-8 text at line {number}; download it again.") from error
    if not text:
        raise StvError(f"{path} has a blank line {number}; remove it or download the file again.")
    return text


def line_entry(path: Path, number: int, line: bytes) -> Entry:
    """A line of JSON as an entry; raises `StvError` with the file and the line."""
    try:
        row = json.loads(line_text(path, number, line))
    except json.JSONDecodeError as error:
        raise StvError(f"{path} is no JSON at line {number} ({error.msg}); correct the line.") from error
    except (ValueError, RecursionError) as error:
        raise StvError(f"{path} is no JSON at line {number} ({_parser(error)}); correct the line.") from error
    return Entry.of(row, number, path, "Line")


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 text without their ends, item `i` being line `i + 1`; raises `StvError` as `line_text` does."""
    return [line_text(path, number, line) for number, line in numbered_lines(path)]


def subset(examples: Sequence[T], n: int, split: str, config: DatasetConfig) -> tuple[T, ...]:
    """A seeded choice of `n` of a split, the same in every run; a larger choice begins with the smaller one.

    Raises `StvError` with the number there is where the split has fewer.
    """
    if n > len(examples):
        raise StvError(
            f"The {split} split of {config.name} has {len(examples)} examples, not {n}; lower {_key(split, config)}."
        )
    order = list(range(len(examples)))
    random.Random(0).shuffle(order)
    return tuple(examples[i] for i in order[:n])


def _key(split: str, config: DatasetConfig) -> str:
    return "dataset.support" if split == config.support_split else "dataset.eval"


def _listed(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{', '.join(paths[:-1])} and {paths[-1]}"


def _advice(dataset: str) -> str:
    what = DOWNLOADS.get(dataset, "its files")
    return f"download {what} from the official site and unpack them so that these paths exist."


def _before_wildcards(path: str) -> PurePosixPath:
    parts = PurePosixPath(path).parts
    wild = [i for i, part in enumerate(parts) if set(part) & set("*?[")]
    return PurePosixPath(*parts[: wild[0]] if wild else parts)


def _text(path: Path) -> str:
    """The whole file; a byte-order mark is no part of it."""
    content = _bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StvError(f"{path} is no UTF-8 text at line {line}; download it again.") from error


def _bytes(path: Path) -> bytes:
    check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise StvError(f"{path} cannot be read ({error.strerror}); check that it is there and readable.") from error


def _parser(error: Exception) -> str:
    return "its values lie too deep" if isinstance(error, RecursionError) else str(error).split(";")[0]
