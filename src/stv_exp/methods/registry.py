"""Finds choices by their names: the files beside this one, and classes anywhere by their dotted path."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from stv_exp.errors import StvError
from stv_exp.methods.choice import Choice, How, What, Where
from stv_exp.methods.trained import Trained

C = TypeVar("C", bound=Choice)
KINDS: dict[str, type[Choice]] = {"where": Where, "what": What, "how": How, "edit": Trained}
_registered: dict[str, dict[str, type[Choice]]] = {kind: {} for kind in KINDS}


def register(name: str) -> Callable[[type[C]], type[C]]:
    """Class decorator: the choice is known by `name` among those of its kind."""

    def keep(choice: type[C]) -> type[C]:
        choice.name = name
        _registered[choice.kind][name] = choice
        return choice

    return keep


@cache
def _discover() -> None:
    for kind in KINDS:
        package = importlib.import_module(f"stv_exp.methods.{kind}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")


def choices(kind: str) -> dict[str, type[Choice]]:
    """Every choice of a kind that comes with the package, by name."""
    _discover()
    return dict(sorted(_registered[kind].items()))


def find(kind: str, name: str) -> type[Choice]:
    """A choice by name or dotted path; raises `StvError` with those there are."""
    known = choices(kind)
    if name in known:
        return known[name]
    if "." in name:
        return _outside(kind, name)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? Else " if near else ""
    raise StvError(f"method.{kind}={name} is unknown; {hint}choose one of {', '.join(known)}.")


def summary(choice: type[Choice]) -> str:
    """What a choice says about itself in a line."""
    return (inspect.getdoc(choice) or "").split("\n")[0]


def source(choice: type[Choice]) -> str:
    """Hash of a choice's code where it is not part of the package (whose stages have version numbers), else empty.

    What it inherits from other files outside counts too.
    """
    known = {"stv_exp", *sys.stdlib_module_names}
    outside = [parent for parent in choice.__mro__ if parent.__module__.partition(".")[0] not in known]
    files = dict.fromkeys(inspect.getfile(parent) for parent in outside)
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:16] if files else ""


def _outside(kind: str, path: str) -> type[Choice]:
    module, _, attribute = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a user's module raises when it is imported
        raise StvError(
            f"method.{kind}={path} cannot be imported ({type(error).__name__}: {error}); "
            "check the name, and that the module lies in the folder of --config-dir."
        ) from error
    if not (isinstance(found, type) and issubclass(found, KINDS[kind])):
        raise StvError(
            f"method.{kind}={path} is no {KINDS[kind].__name__}; derive it from stv_exp.methods.{KINDS[kind].__name__}."
        )
    found.name = path
    return found
