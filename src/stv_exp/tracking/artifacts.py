"""A run's artefacts in W&B: scan -> bank -> task vector, or a trained edit.

These travel with their file. A scan holds T x L x H x D activations, gigabytes of a large model, and neither scan
nor bank is of use apart from its outputs folder: of these the record goes (signature, cost and checksum), so that the
lineage is whole and the file, wherever it is kept, can be told. Names are signatures: runs that share a stage share its
artifact.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb

from stv_exp.tracking.exhibit import Exhibit

_READ = {"scan": ("scan.pairs", "scan.shots"), "bank": ("method.k", "method.m", "method.sensitivity")}

_TRAVEL = ("task_vector", "trained_edit")


def stages(exhibit: Exhibit) -> Iterator[wandb.Artifact]:
    """Scan and bank, as far as their records are here."""
    above = None
    for stage, keys in _READ.items():
        signature = exhibit.inputs.get(stage)
        record = exhibit.stages / f"{stage}-{signature}" / "record.json"
        if signature and record.is_file():
            artifact = _artifact(f"{stage}-{signature}", stage, exhibit, keys, above)
            artifact.add_file(str(record.absolute()), policy="immutable")
            yield artifact
        above = f"{stage}-{signature}"


def vector(exhibit: Exhibit) -> wandb.Artifact | None:
    """The task vector or the trained edit, as its file; None where the run has made none."""
    files = [exhibit.folder / f"{kind}.safetensors" for kind in _TRAVEL]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        return None
    keys, name = ("method.name", *_READ["bank"]), path.stem.replace("_", "-")
    artifact = _artifact(f"{name}-{exhibit.signature}", path.stem, exhibit, keys, _bank(exhibit))
    artifact.metadata |= {"accuracy": exhibit.metrics.get("accuracy"), "n": exhibit.metrics.get("n")}
    artifact.add_file(str(path.absolute()), policy="immutable")  # a finished run's files stay as they are
    return artifact


@contextmanager
def staged_in(folder: Path) -> Iterator[None]:
    """Have W&B copy the files of artifacts to `folder` while the body adds and logs them, not to the user's home."""
    if "WANDB_DATA_DIR" in os.environ:  # the user's own choice
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str(folder.absolute())
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]


def make_portable(artifact: wandb.Artifact, outputs: Path) -> wandb.Artifact:
    """The same with paths that begin with the outputs folder's name: absolute ones name nothing once it is copied."""
    for entry in artifact.manifest.entries.values():
        if entry.local_path:
            entry.local_path = os.path.relpath(entry.local_path, outputs.absolute().parent)
    return artifact


def _artifact(name: str, kind: str, exhibit: Exhibit, keys: tuple[str, ...], above: str | None) -> wandb.Artifact:
    values = exhibit.values
    known = ("model.name", "dataset.name", "dataset.task", *keys)
    metadata: dict[str, Any] = {key: values[key] for key in known if key in values}
    return wandb.Artifact(name, kind, metadata=metadata | {"seed": exhibit.manifest.get("seed"), "from": above})


def _bank(exhibit: Exhibit) -> str | None:
    return f"bank-{exhibit.inputs['bank']}" if "bank" in exhibit.inputs else None
