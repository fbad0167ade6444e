"""Artefacts of stages on disk: found by signature, written whole or not at all, checked before they are used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stv_exp.disk.files import checksum, damage, read_json, replaced_folder, write_json
from stv_exp.disk.locks import locked

if TYPE_CHECKING:  # a look-up of what is done needs no torch
    from stv_exp.artefacts.base import Artefact

A = TypeVar("A", bound="Artefact")
Cost = dict[str, float]
log = logging.getLogger(__name__)
_FILE = "artefact.safetensors"


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
            if (record := _intact(folder)) is not None:
                log.debug("%s %s found in the store", name, signature)
                return kind.load(folder / _FILE), record["cost"]
            artefact, cost = build()
            _keep(folder, artefact, {"stage": name, "signature": signature, "cost": cost})
            return artefact, cost

    def holds(self, name: str, signature: str) -> bool:
        """Whether a stage is there and whole."""
        return _intact(self.stages / f"{name}-{signature}") is not None

    def scratch(self, name: str, signature: str) -> Path:
        """A (hidden) folder for what a stage keeps until it is done; whoever builds the stage holds its lock."""
        return self.stages / f".{name}-{signature}.unfinished"


def _keep(folder: Path, artefact: Artefact, record: dict[str, Any]) -> None:
    with replaced_folder(folder) as new:
        artefact.save(new / _FILE)
        write_json(new / "record.json", record | {"sha256": checksum(new / _FILE)})


def _intact(folder: Path) -> dict[str, Any] | None:
    """The record of an artefact that is all there, None otherwise."""
    if not folder.exists():
        return None
    record = read_json(folder / "record.json") or {}
    complete = isinstance(record.get("cost"), dict) and isinstance(record.get("sha256"), str)
    found = damage(folder, {_FILE: record["sha256"]}) if complete else "record.json is missing or damaged"
    if found:
        log.warning("%s is damaged (%s) and is made anew", folder, found)
        return None
    return record
