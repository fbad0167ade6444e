"""Files that are written whole or not at all, and known by their checksums.

A temporary name starts with a dot and holds `.tmp-`; whoever holds the lock of a folder removes what dead processes
have left there (`locks.locked`). Names are random: process numbers repeat between containers that share a disk.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any


def write_json(path: Path, value: object) -> None:
    """Write readable JSON in one step: a reader never sees half of it."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file in one step."""
    with replaced_file(path) as new:
        new.write_text(text, encoding="utf-8")


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` once the body has ended well."""
    handle, name = tempfile.mkstemp(prefix=_temporary(path), dir=path.parent)
    os.close(handle)
    new = Path(name)
    try:
        new.chmod(0o666 & ~_umask())  # `mkstemp` keeps its file to its owner
        yield new
        _flush(new)
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):  # an empty folder in its place holds nothing that could be lost
                path.rmdir()
        new.replace(path)
    finally:
        with suppress(OSError):  # it is gone where all went well; else what went wrong is what is to be told
            new.unlink(missing_ok=True)
    _flush(path.parent)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` once the body has ended well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=_temporary(folder), dir=folder.parent))
    try:
        new.chmod(0o777 & ~_umask())
        yield new
        for path in new.iterdir():
            _flush(path)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    _flush(folder.parent)


def remove_temporary(folder: Path) -> None:
    """Remove what processes that died have left of `folder` and in it; only for who holds its lock."""
    for path in [*folder.glob(".*.tmp-*"), *folder.parent.glob(f"{glob.escape(_temporary(folder))}*")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, None where there is none or it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def checksum(path: Path) -> str:
    """SHA-256 of a file; raises `OSError` where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage(folder: Path, checksums: dict[str, str]) -> str | None:
    """What is wrong with the files of a folder (`predictions.jsonl is missing`), None where all are as written."""
    for name, expected in checksums.items():
        path = folder / name
        try:
            if not S_ISREG(path.stat().st_mode):  # never opened: a pipe would wait for a writer
                return f"{name} is no file"
            if checksum(path) != expected:
                return f"{name} has changed since it was written"
        except FileNotFoundError:
            return f"{name} is missing"
        except (OSError, ValueError) as error:
            return f"{name} cannot be read ({getattr(error, 'strerror', error)})"
    return None


def damaged(folder: Path, status: dict[str, Any]) -> str | None:
    """What is wrong with the files of a run that is done, None where they are as they were written."""
    files = status.get("files")
    if not isinstance(files, dict) or "metrics.json" not in files:
        return "status.json holds no checksums"
    return damage(folder, files)


def _temporary(path: Path) -> str:
    return f".{path.name.lstrip('.')}.tmp-"


def _umask() -> int:
    """The process's mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    """Have the disk hold what is written: a rename must not come before its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems flush no folders
            os.fsync(handle)
    finally:
        os.close(handle)
