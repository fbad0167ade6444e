"""What stages hand to each other: frozen dataclasses that save themselves as one safetensors file.

Tensors are the file's tensors, every other field is JSON in its header. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from stv_exp.errors import StvError


class Artefact:
    """Mixin for a dataclass whose fields are tensors or JSON values."""

    def save(self, path: Path | str) -> None:
        """Write every field to `path`, a `.safetensors` file."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        tensors = {k: v.detach().cpu().contiguous() for k, v in values.items() if isinstance(v, torch.Tensor)}
        rest = {k: v for k, v in values.items() if k not in tensors}
        save_file(tensors, path, metadata={"format": "pt", type(self).__name__: json.dumps(rest)})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote; raises `StvError` where `path` is no such file."""
        try:
            with safe_open(path, framework="pt") as file:
                values: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return cls(**values, **json.loads(file.metadata()[cls.__name__]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise StvError(
                f"{path} is not a saved {cls.__name__} ({error}); check the path or make it anew."
            ) from error
