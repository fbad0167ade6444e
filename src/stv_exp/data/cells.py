"""Pictures in the cells of a table: bytes, paths below the dataset's folder, or files of a remote or packed dataset."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from stv_exp.data.entry import ADVICE, leaves
from stv_exp.data.files import expanded, is_folder
from stv_exp.data.images import once, open_image
from stv_exp.errors import StvError


@once(key=lambda name, read, i, root: f"{name} [{i}]")
def cell_picture(name: str, read: Callable[[], Any], i: int, root: str) -> Image.Image:
    """Decode a cell's picture `i` as `open_image` does, once while it is held."""
    value = read()
    return _decoded(value[i] if isinstance(value, list) else value, f"{name} [{i}]", root)


def _decoded(value: Any, name: str, root: str) -> Image.Image:
    """The picture of an undecoded cell: bytes, a path (below `root` where relative), or `datasets`' pair of both."""
    content = (value.get("bytes") or value.get("path")) if isinstance(value, dict) else value
    if content is None or content in ("", b""):
        raise StvError(f"Image {name} is empty; remove the row or set dataset.skip_broken=true.")
    if not isinstance(content, str | bytes):
        raise StvError(f"Image {name} is {reprlib.repr(content)}, which is no picture, bytes or path; {ADVICE}.")
    source: Any = _below(content, name, root) if isinstance(content, str) and "://" not in content else None
    if source is None:
        source = BytesIO(_fetched(content, name) if isinstance(content, str) else content)
    try:
        return open_image(source)
    except StvError as error:
        raise StvError(str(error).replace(f"Image {source}", f"Image {name}", 1)) from error


def _below(path: str, name: str, root: str) -> str:
    """A path of a cell, below `root`; `datasets` itself writes those of a folder's files in full."""
    folder = expanded(root)
    whole = Path(os.path.normpath(path))
    if whole.is_absolute() and (
        not is_folder(folder) or any(whole.is_relative_to(base) for base in (folder.absolute(), folder.resolve()))
    ):
        return path
    if complaint := leaves(path):
        raise StvError(f"Image {name} is {path!r}, {complaint}; {ADVICE}.")
    return str(folder / path)


def _fetched(path: str, name: str) -> bytes:
    """A file of a remote or packed dataset."""
    if path.startswith(("file://", "local://")):
        raise StvError(f"Image {name} is {path!r}, which leaves its folder; {ADVICE}.")
    from datasets.utils.file_utils import xopen

    try:
        with xopen(path, "rb") as file:
            return bytes(file.read())
    except Exception as error:  # its HTTP library's errors too
        raise StvError(f"Image {name} cannot be fetched ({first_line(error)}); try again.") from error


def first_line(error: BaseException) -> str:
    """What an error of foreign code says, as a part of a sentence."""
    return " ".join(f"{type(error).__name__}: {error}".split("\n")[:2]).rstrip(".: ")
