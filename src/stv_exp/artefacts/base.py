"""What stages hand to each other: frozen dataclasses that save themselves as one safetensors file.

Tensors are the file's tensors, those of a dict under `field.key`; every other field is JSON in its header. Nothing is
ever unpickled. Equal artefacts are equal bytes: safetensors keeps its metadata in a hash map, so there is one entry, of
sorted JSON.
"""

from __future__ import annotations

import json
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Self, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from stv_exp.artefacts.values import fits, named, one_line, too_deep
from stv_exp.errors import StvError

UNSAVED = {"saved": False}  # metadata of a field that is carried along only


class Artefact:
    """Mixin for a dataclass whose fields are tensors or JSON values."""

    def save(self, path: Path | str) -> None:
        """Write every field to `path`, a `.safetensors` file; raises `StvError` for values that JSON does not know."""
        values = {f.name: getattr(self, f.name) for f in _saved(self)}
        tables = {name: values[name] for name in _tables_of(type(self))}
        named = {f"{k}.{name}": tensor for k, table in tables.items() for name, tensor in table.items()}
        named |= {k: v for k, v in values.items() if isinstance(v, torch.Tensor)}
        tensors = _apart({k: v.detach().cpu() for k, v in named.items()})
        rest = {k: v for k, v in values.items() if k not in tensors and k not in tables}
        name = type(self).__name__
        if too_deep(rest):
            raise StvError(f"A {name} holds lists or dicts too deep within each other for a file; make it flatter.")
        try:
            text = json.dumps(rest, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise StvError(f"A {name} holds what JSON cannot ({one_line(error)}); use plain values.") from error
        save_file(tensors, path, metadata={name: text})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote; raises `StvError` where `path` is no such file."""
        try:
            with safe_open(path, framework="pt") as file:
                values: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                written = json.loads((file.metadata() or {})[cls.__name__], object_pairs_hook=_once)
        except RecursionError as error:
            raise cls._unreadable(path, "its header nests too deep") from error
        except KeyError as error:
            raise cls._unreadable(path, f"its header has no {cls.__name__}") from error
        except (OSError, SafetensorError, TypeError, ValueError, RuntimeError) as error:
            raise cls._unreadable(path, one_line(error)) from error
        return cls._made(path, values, written)

    @classmethod
    def _made(cls, path: Path | str, tensors: dict[str, Any], written: Any) -> Self:
        if not isinstance(written, dict) or too_deep(written):
            raise cls._unreadable(path, f"its {cls.__name__} is no JSON object, or one that nests too deep")
        if twice := sorted(tensors.keys() & written.keys()):
            raise cls._unreadable(path, f"it has {one_line(twice[0])} twice")
        values, hints = _gathered(tensors, _tables_of(cls)) | written, get_type_hints(cls)
        known = {f.name: hints[f.name] for f in _saved(cls)}
        for name, value in values.items():
            if name not in known:
                raise cls._unreadable(path, f"a {cls.__name__} has no {one_line(name)}")
            if not fits(value, known[name]):
                raise cls._unreadable(path, f"{name} is of type {type(value).__name__}, not {named(known[name])}")
        try:
            return cls(**values)
        except TypeError as error:  # a field without a default is missing
            raise cls._unreadable(path, one_line(error)) from error
        except StvError as error:
            raise StvError(f"{path} holds no {cls.__name__} that can be used: {error}") from error

    @classmethod
    def _unreadable(cls, path: Path | str, reason: str) -> StvError:
        return StvError(f"{path} is not a saved {cls.__name__} ({reason}); check the path or make it anew.")


def _saved(artefact: Any) -> list[Field[Any]]:
    return [f for f in fields(artefact) if f.metadata != UNSAVED]


def _tables_of(kind: type) -> list[str]:
    """The fields of an artefact that are dicts of tensors."""
    return [name for name, hint in get_type_hints(kind).items() if hint == dict[str, torch.Tensor]]


def _gathered(tensors: dict[str, Any], tables: list[str]) -> dict[str, Any]:
    """A file's tensors by field: those of a dict are named `field.key`."""
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        field, dot, key = name.partition(".")
        if dot and field in tables and field not in tensors:
            found.setdefault(field, {})[key] = tensor
        else:
            found[name] = tensor
    return found


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous tensors that share no memory, which safetensors refuses."""
    found, seen = {}, set[int]()
    for name, tensor in tensors.items():
        own = tensor.contiguous()
        found[name] = own.clone() if own.untyped_storage().data_ptr() in seen else own
        seen.add(own.untyped_storage().data_ptr())
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which nothing may be said twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its header says a key twice")
    return found
