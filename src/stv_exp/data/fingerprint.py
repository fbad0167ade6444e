"""What a dataset is: the contents of its files and the code of a loader from outside, not the path they lie at.

A look-up of a finished job comes by here, so nothing is decoded or parsed, and no loader is imported.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from stat import S_ISREG

from stv_exp.config import DatasetConfig
from stv_exp.data.files import expanded, is_folder
from stv_exp.data.installed import installed

WHOLE_BYTES = 32 << 20  # the annotations of benchmarks are smaller; reading this takes a few hundredths of a second
_SAMPLE_BYTES = 1 << 20
_PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif")
_SETTLED = 2_000_000_000  # nanoseconds until a further edit has another time on any file system
_OWN = "stv_exp."  # the package's own loaders, whose stages have version numbers

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class _Contents:
    """A folder's digest, and the stamps of its folders and annotations, by which it is known to be as it was."""

    digest: str
    stamps: dict[str, Stamp | None]

    @property
    def unchanged(self) -> bool:
        return all(_stamp(_stat(path)) == stamp for path, stamp in self.stamps.items())


_known: dict[tuple[str, str], _Contents] = {}


def sources(config: DatasetConfig, outputs: str = "") -> dict[str, str]:
    """Identity of what `config` reads: the files below `root`, the episodes' annotations, and the loader's code.

    A root that is no folder, such as a hub id, stays as it is. `outputs` may lie below the root and is no part of it.
    """
    reads_root = config.root if config.loader != "stv_exp.data.easy_vqa" else ""
    found = {
        "root": fingerprint(reads_root or installed(config.loader), outputs),
        "annotations": fingerprint(config.episode.annotations, outputs),
    }
    return found | ({"code": code} if (code := _code(config.loader)) else {})


def fingerprint(folder: str, outputs: str = "") -> str:
    """Hash of what lies below `folder`, pictures by name and size, or `folder` itself where it is none.

    Listed once a process, and again where a folder or an annotation has changed since. Hidden files do not count.
    """
    if not folder or not is_folder(expanded(folder)):
        return folder
    root = str(expanded(folder).absolute())
    known = _known.get((root, outputs))
    if known is None or not known.unchanged:
        known = _listed(root, outputs)
        if _settled(known):
            _known[root, outputs] = known
    return known.digest


def sampled(path: Path | str, size: int, whole: int) -> Iterator[bytes]:
    """A file's content where it has at most `whole` bytes, else a piece of its start, its middle and its end."""
    with Path(path).open("rb") as file:
        for start in (0,) if size <= whole else (0, size // 2, size - _SAMPLE_BYTES):
            file.seek(start)
            yield file.read(size if size <= whole else _SAMPLE_BYTES)


def _listed(root: str, outputs: str) -> _Contents:
    lines: list[bytes] = []
    stamps: dict[str, Stamp | None] = {}
    for folder, pictures, others in _below(root, _stat(outputs) if outputs else None):
        stamps |= {path: _stamp(_stat(path)) for path in (folder, *others)}
        lines.append(os.fsencode(folder[len(root) :]) + b"\0" + pictures)
        lines += [os.fsencode(path[len(root) :]) + b"\0" + _content(path) for path in others]
    return _Contents(hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()[:16], stamps)


def _below(root: str, skipped: os.stat_result | None) -> Iterator[tuple[str, bytes, list[str]]]:
    """Each folder with a digest of its pictures and its other files; links are followed, but in no circle."""
    waiting: list[tuple[str, tuple[os.stat_result, ...]]] = [(root, ())]
    while waiting:
        folder, above = waiting.pop()
        found = _stat(folder)
        if found is None or any(os.path.samestat(found, other) for other in above):
            continue
        if above and skipped and os.path.samestat(found, skipped):
            continue
        folders, pictures, others = _children(folder)
        waiting += [(path, (*above, found)) for path in folders]
        yield folder, pictures, others


def _children(folder: str) -> tuple[list[str], bytes, list[str]]:
    """The folders in `folder`, a digest of the pictures' names and sizes, and all other files."""
    folders, pictures, others = [], [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith((".", "__pycache__")):
                    continue
                if entry.is_dir():
                    folders.append(entry.path)
                elif entry.name.lower().endswith(_PICTURES):
                    pictures.append(f"{entry.name}\0{_size(entry)}")
                else:
                    others.append(entry.path)
    except OSError:  # no right to look into it
        return [], b"unreadable", []
    text = "\n".join(sorted(pictures)).encode(errors="surrogateescape")
    return folders, hashlib.sha256(text).digest() if pictures else b"", others


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link to nowhere
        return -1


def _content(path: str) -> bytes:
    """What counts of an annotation: its size and what it holds."""
    found = _stat(path)
    if found is None or not S_ISREG(found.st_mode):
        return b"no file"  # never opened: a pipe would wait for a writer
    digest = hashlib.sha256(b"%d" % found.st_size)
    if found.st_size > WHOLE_BYTES:  # an edit between the samples shows in the time alone
        digest.update(b"%d" % found.st_mtime_ns)
    try:
        for piece in sampled(path, found.st_size, WHOLE_BYTES):
            digest.update(piece)
    except OSError:
        return b"unreadable"
    return digest.digest()


def _stat(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except (OSError, ValueError):
        return None


def _stamp(found: os.stat_result | None) -> Stamp | None:
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size) if found else None


def _settled(contents: _Contents) -> bool:
    """Whether no stamp is so recent that an edit within the same tick of the clock would be missed."""
    latest = max(max(stamp[:2]) for stamp in contents.stamps.values() if stamp)
    return latest < time.time_ns() - _SETTLED


def _code(loader: str) -> str:
    """Hash of the source of a loader from outside, of all its files where it is a package; empty where there is none.

    A loader that cannot be found is refused where it is imported, with the reason.
    """
    if loader.startswith(_OWN):
        return ""
    try:
        spec = find_spec(loader)
    except (ImportError, AttributeError, ValueError):
        return ""
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        return ""
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = sorted(file for folder in folders for file in folder.rglob("*.py")) or [Path(spec.origin)]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]
