"""Artefacts and runs on disk: found by signature, written whole or not at all, checked before they are used."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

if TYPE_CHECKING:  # a look-up of what is done needs no torch
    from stv_exp.artefacts.base import Artefact

A = TypeVar("A", bound="Artefact")
Cost = dict[str, float]
log = logging.getLogger(__name__)


class Store:
    """The stage artefacts below one outputs folder: `stages/<stage>-<signature>/`."""

    def __init__(self, outputs: Path | str) -> None:
        self.stages = Path(outputs) / "stages"

    def stage(self, name: str, signature: str, kind: type[A], build: Callable[[], tuple[A, Cost]]) -> tuple[A, Cost]:
        """Load the artefact, or build and keep it; jobs that need the same one wait for the first to make it.

        Returns what it is and what making it has cost, whenever that was. A damaged artefact is made anew.
        """
        folder = self.stages / f"{name}-{signature}"
        with locked(folder):
            record = _intact(folder)
            if record is not None:
                log.debug("%s %s found in the store", name, signature)
                return kind.load(folder / "artefact.safetensors"), record["cost"]
            artefact, cost = build()
            with replaced(folder) as new:
                artefact.save(new / "artefact.safetensors")
                record = {"stage": name, "signature": signature, "cost": cost}
                write_json(new / "record.json", record | {"sha256": _checksum(new / "artefact.safetensors")})
            return artefact, cost

    def scratch(self, name: str, signature: str) -> Path:
        """A (hidden) folder for what a stage keeps until it is done; whoever builds the stage holds its lock."""
        return self.stages / f".{name}-{signature}.unfinished"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the (hidden) lock file beside `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        yield


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` once the body has ended well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield new
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    """Write readable JSON in one step: a reader never sees half of it."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file in one step."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, None where there is none or it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _intact(folder: Path) -> dict[str, Any] | None:
    """The record of an artefact that is all there, None otherwise."""
    record = read_json(folder / "record.json")
    if record is None:
        return None
    if not (folder / "artefact.safetensors").is_file() or record["sha256"] != _checksum(
        folder / "artefact.safetensors"
    ):
        log.warning("%s is damaged and is made anew", folder)
        return None
    return record


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
