"""`python -m stv_exp.keep STUDY FOLDER [outputs]`: what a study's tables are made of, as FOLDER/STUDY.tar.xz.

Some hundred bytes a run: settings, numbers and predictions, without vectors, histories and logs. Unpacked into an
outputs folder (`tar -xf`), the runs count as done: tables are drawn of them, and a sweep goes on with the others. What
the archive held before stays in it, so that a study may be run in parts, on several machines.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import sys
import tarfile
from pathlib import Path

from stv_exp.disk.files import damaged, read_json, replaced_file
from stv_exp.disk.locks import locked
from stv_exp.disk.study import Study
from stv_exp.errors import StvError
from stv_exp.interruption import guarded
from stv_exp.report.folders import nothing
from stv_exp.report.printing import folder, written
from stv_exp.report.screen import print_line
from stv_exp.report.text import brief

KEPT = ("manifest.json", "metrics.json", "overrides.yaml", "predictions.jsonl")
SUFFIX = ".tar.xz"


def main() -> int:
    """Entry point: the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stv_exp.keep", description=__doc__)
    parser.add_argument("study", help="a study's name, as in outputs/sweeps")
    parser.add_argument("folder", type=folder, help="where its archive is, or is to be")
    parser.add_argument("outputs", nargs="?", default="outputs", type=folder, help="outputs folder (default: outputs)")
    given = parser.parse_args()
    archive = given.folder / f"{given.study}{SUFFIX}"
    return written(lambda: keep(Study(given.outputs, given.study), archive), str(given.folder))


def keep(study: Study, archive: Path) -> None:
    """Add a study's finished runs to its archive, in the place of what it had of them.

    Raises `StvError` where none is finished, or the archive is damaged.
    """
    found = {name: content for run in study.runs() for name, content in _files(study, run).items()}
    if not found:
        raise nothing(study.outputs, study.name)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with locked(archive):  # of two at once the second adds to what the first has written
        runs = _write(archive, (_held(archive) if archive.is_file() else {}) | found)
    print_line(f"Written to {archive}: {runs} runs, {archive.stat().st_size:,} bytes")


def _write(archive: Path, files: dict[str, bytes]) -> int:
    """Returns how many runs there are."""
    with replaced_file(archive) as new, tarfile.open(new, "w:xz", preset=9) as tar:
        for name in sorted(files, key=lambda name: (Path(name).name, name)):  # like beside like packs best
            entry = tarfile.TarInfo(name)  # of no time and nobody: the same runs are the same bytes
            entry.size = len(files[name])
            tar.addfile(entry, io.BytesIO(files[name]))
    return len({Path(name).parent for name in files if Path(name).name == "status.json"})


def _held(archive: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(archive, "r:xz") as tar:
            return {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry)) is not None}
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise StvError(
            f"{archive} is damaged ({brief(error)}); put it back, or remove it to begin a new one."
        ) from error


def _files(study: Study, run: Path) -> dict[str, bytes]:
    """What is kept of a run, by its path in an outputs folder; nothing of one that is not done, or damaged."""
    status = read_json(run / "status.json") or {}
    if status.get("state") != "done" or damaged(run, status):
        return {}
    files = {name: own for name, own in status["files"].items() if name in KEPT}
    kept = {f"runs/{run.name}/{name}": (run / name).read_bytes() for name in files}
    told = json.dumps(status | {"files": files}).encode()
    entry = (study.folder / f"{run.name}.run").read_bytes()
    return kept | {f"runs/{run.name}/status.json": told, f"sweeps/{study.name}/{run.name}.run": entry}


if __name__ == "__main__":
    sys.exit(guarded(main))
