"""Turns an exception that bad input caused into one sentence: what, where, what to do."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from stv_exp.config import Config
from stv_exp.errors import StvError

# How the names of Hydra's plug-ins begin, and what brings them.
_PLUGINS = {
    "hydra/launcher": {"joblib": "'stv_exp[joblib]'", "submitit": "'stv_exp[slurm]'", "ray": "'stv_exp[ray]'"},
    "hydra/sweeper": {
        "optuna": "'stv_exp[optuna]'",
        "ax": "hydra-ax-sweeper",
        "nevergrad": "hydra-nevergrad-sweeper",
    },
}
_GROUPS = ("model", "dataset", "method", "trainer", "tracker", "launch", "sweeper", "protocol", "experiment")
_REMEDIES = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the disk's quota is used up: make room",
    errno.EFBIG: "the disk takes no more of it: make room",
    errno.EROFS: "the folder can only be read: choose another one, by outputs=FOLDER",
    errno.EACCES: "it is not permitted: change the permissions, or choose another folder, by outputs=FOLDER",
    errno.EPERM: "it is not permitted: change the permissions, or choose another folder, by outputs=FOLDER",
    errno.ENOTDIR: "a file stands where a folder should be: move it away, or choose another folder",
    errno.EEXIST: "a file stands where a folder should be: move it away, or choose another folder",
    errno.EISDIR: "a folder stands where a file should be: move it away, or choose another folder",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
}

# What libraries say in other words: torch when a disk or a memory is full, Python without a place for small files.
_OTHER_WORDS = {
    "Config group override must be": f"A group ({', '.join(_GROUPS)}) takes the name of a file of its, not a number.",
    "failed writing file": "The disk is full: make room; then run the same command again, it goes on from what is "
    "finished.",
    "No usable temporary directory": "There is no folder for temporary files: set TMPDIR to one that can be written.",
    "out of memory": "The memory is used up; lower trainer.batch_size, policy.samples or policy.cache_bytes.",
    "can't allocate memory": "The memory is used up; lower trainer.batch_size, policy.samples or policy.cache_bytes.",
}


def complaint(error: BaseException) -> str | None:
    """The sentence for `error`, or None where it is a defect of ours that deserves its traceback."""
    chain = list(_causes(error))
    sentences: dict[type[BaseException], Callable[[Any], str | None]] = {
        StvError: str,
        OverrideParseException: _unreadable,
        MissingConfigException: _missing_choice,
        MissingMandatoryValue: _missing_value,
        ConfigKeyError: _unknown_key,
        ConfigAttributeError: _unknown_key,
        ValidationError: _wrong_type,
        ConfigCompositionException: _composition,
        OmegaConfBaseException: _first_line,
        HydraException: _first_line,
        OSError: _disk,
        MemoryError: lambda _: _OTHER_WORDS["out of memory"],
    }
    for kind, sentence in sentences.items():
        for found in chain:
            if isinstance(found, kind) and (said := sentence(found)):
                return said
    return next((said for found in chain if (said := _in_disguise(str(found)))), None)


def keys(config: Any = Config, prefix: str = "") -> list[str]:
    """Every dotted key that the schema knows."""
    found: list[str] = []
    for f in fields(config):
        default = f.default_factory() if callable(f.default_factory) else f.default
        found += keys(default, f"{prefix}{f.name}.") if is_dataclass(default) else [prefix + f.name]
    return found


def unknown(key: str) -> str:
    """The sentence for a key that is no setting, with the nearest one."""
    close = difflib.get_close_matches(key, [*_GROUPS, *keys()], n=1)
    return f"{key} is not a setting" + (f"; did you mean {close[0]}?" if close else "; see conf/ for those there are.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unreadable(error: OverrideParseException) -> str:
    """Hydra's grammar has no place for `=`, `(`, `~`, letters beyond ASCII and others outside quotes."""
    key, equals, value = str(error.override).partition("=")
    if not equals or not key:
        return f"{error.override!r} is no setting; write key=value, as in method.k=8."
    quoted = value.strip("'\"").replace("\\", "\\\\").replace("'", "\\'")
    return f"The value in {error.override} cannot be read; put it in quotes, both of them: \"{key}='{quoted}'\"."


def _missing_choice(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    for plugin, package in _PLUGINS.get(group, {}).items():
        if name.startswith(plugin):
            return f"{group}={name} needs a plug-in of Hydra; run: pip install {package}."
    choices = ", ".join(error.options or [])
    return f"{group}={name} is unknown; choose one of {choices}." if choices else _first_line(error)


def _missing_value(error: MissingMandatoryValue) -> str:
    return f"{error.full_key or 'A setting'} has no value; set it on the command line or in an experiment."


def _unknown_key(error: OmegaConfBaseException) -> str:
    return unknown(str(error.full_key or error.key))


def _wrong_type(error: ValidationError) -> str:
    key, line = error.full_key, _first_line(error)
    if "not Optional" in line:
        return f"{key} must have a value; null is none."
    if "type hint 'str'" in line:
        value = str(error.msg).split("'")[1]
        return f"{key} takes text and {value}, unquoted, is read as something else; write it in quotes, \"'...'\"."
    return line


def _composition(error: ConfigCompositionException) -> str | None:
    """Hydra's sentence with the remedy that stands in its other lines."""
    line = _first_line(error).rstrip(".")
    quoted = line.split("'")[1] if line.count("'") > 1 else ""
    if line.startswith("Ambiguous value"):
        return f"{quoted} has several values; add -m to run one job for each, or use [ ] for a list."
    if line.startswith("Could not override"):
        return unknown(quoted)
    if "more than once" in line:
        return f"{line}; leave out the + before it."
    return None


def _first_line(error: BaseException) -> str:
    key = getattr(error, "full_key", None)
    line = str(error).strip().split("\n")[0].rstrip(".")
    return f"{key}: {line}." if key else f"{line}."


def _disk(error: OSError) -> str | None:
    """What the disk has refused, and what helps; None for an error of another kind."""
    if error.errno not in _REMEDIES and not error.filename:
        return None
    remedy = _REMEDIES.get(error.errno or 0) or f"{error.strerror}: check the path"
    return _advice(f"{error.filename}: {remedy}" if error.filename else remedy.capitalize())


def _in_disguise(text: str) -> str | None:
    """The same for what libraries in other languages raise: safetensors, torch, and Hydra for its groups."""
    if (found := re.search(r"\(os error (\d+)\)", text)) and (remedy := _REMEDIES.get(int(found[1]))):
        return _advice(remedy.capitalize())
    words = next((words for words in _OTHER_WORDS if words in text), "")
    return _OTHER_WORDS.get(words)


def _advice(what: str) -> str:
    return f"{what}; then run the same command again, it goes on from what is finished."
