"""Where a model comes from: one of three that need no hub, a folder, or a hub id."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from stv_exp.errors import StvError
from stv_exp.models.smollm2 import smollm2_folder

TESTBED = Path(__file__).parents[1] / "testbed" / "weights"
_HEADER_BYTES = 1 << 20


def model_folder(name: str) -> Path:
    """The folder (or hub id, as a path) to load `name` from; raises `StvError` for a folder that is missing."""
    if name == "testbed":
        return TESTBED
    if name == "tiny":
        return Path(_tiny().name)
    if name == "smollm2":
        return smollm2_folder()
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise StvError(f"model.name={name} is a folder without config.json; point it at a saved checkpoint.")
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise StvError(f"model.name={name} does not exist; check the path of the checkpoint folder.")
    return folder


@lru_cache
def _tiny() -> TemporaryDirectory[str]:
    """A random model of the testbed's architecture, saved and loaded like any other; gone when the process ends."""
    from stv_exp.testbed.curriculum import vocabulary
    from stv_exp.testbed.model import build_model, build_processor, save

    folder = TemporaryDirectory(prefix="stv_exp-tiny-")
    processor = build_processor(vocabulary())
    save(build_model(processor, layers=2, hidden=64), processor, folder.name)
    return folder


@lru_cache
def fingerprint(name: str) -> str:
    """Identity of a model: its hub id, or for a folder a hash of its config and the start of its weight files.

    The path itself is no part of it, so that a moved folder keeps its results; reading only each file's
    first megabyte (header, shapes and first weights) keeps this quick for large models.
    """
    folder = model_folder(name)
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for file in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        with file.open("rb") as opened:
            digest.update(f"{file.name} {file.stat().st_size}".encode() + opened.read(_HEADER_BYTES))
    return digest.hexdigest()[:16]
