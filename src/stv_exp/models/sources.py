"""Where a model comes from: one of three that need no hub, a folder, or a hub id."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from stv_exp.data.fingerprint import sampled
from stv_exp.errors import StvError
from stv_exp.models.smollm2 import smollm2_folder

TESTBED = Path(__file__).parents[1] / "testbed" / "weights"
OWN = ("testbed", "tiny", "smollm2")  # that need no hub
_WHOLE_BYTES = 3 << 20
_COUNTED = (".safetensors", ".json", ".jinja", ".py", ".model", ".txt", ".tiktoken")


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
    """Identity of a model: its hub id, or for a folder a hash of its files; the folder's path is no part of it.

    Small files (config, tokenizer, chat template, code) count whole; of weights the start, the middle and the end of
    each file, which keeps this quick for large models. The random model is what its code makes and is not built here.
    """
    if name == "tiny":
        code = sorted(TESTBED.parent.glob("*.py"))
        return hashlib.sha256(b"".join(file.read_bytes() for file in code)).hexdigest()[:16]
    folder = model_folder(name)
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.iterdir() if f.suffix in _COUNTED and not f.name.startswith(".")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        for piece in sampled(file, size, _WHOLE_BYTES):
            digest.update(piece)
    return digest.hexdigest()[:16]
