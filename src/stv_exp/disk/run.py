"""A run folder, `runs/<signature>/`: it explains itself without any service."""

from __future__ import annotations

import csv
import io
import json
import platform
import subprocess
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from stv_exp import interruption
from stv_exp.config import Config
from stv_exp.disk.files import checksum, damaged, read_json, write_json, write_text
from stv_exp.disk.locks import process
from stv_exp.identity import Signatures, origin, settings

_PACKAGES = ("stv_exp", "torch", "transformers", "lightning", "hydra-core", "faiss-cpu", "numpy")
_QUEUED = -1  # submitit's exit code for it
_NOT_CHECKED = ("status.json", "log.txt", "traceback.txt")  # they go on being written


class Run:
    """One job's folder and its state: `running`, `done`, `interrupted` or `failed`."""

    def __init__(self, outputs: Path | str, signatures: Signatures) -> None:
        self.signatures = signatures
        self.signature = signatures.run
        self.inputs = {k: v for k, v in asdict(signatures).items() if v and k != "run"}
        self.folder = Path(outputs) / "runs" / signatures.run

    @property
    def metrics(self) -> dict[str, Any] | None:
        """The metrics of a run that is done and whose files are as they were written, else None."""
        status = read_json(self.folder / "status.json") or {}
        if status.get("state") != "done" or damaged(self.folder, status):
            return None
        return read_json(self.folder / "metrics.json")

    @property
    def damage(self) -> str | None:
        """What is wrong with the files of a run that is done, None where nothing is."""
        status = read_json(self.folder / "status.json") or {}
        return damaged(self.folder, status) if status.get("state") == "done" else None

    @contextmanager
    def recorded(self, config: Config, overrides: list[str]) -> Iterator[None]:
        """Keep status, settings and, where the body fails, the traceback."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._status("running", **process())
        try:
            self._write_settings(config, overrides)
            yield
        except BaseException as error:
            self._ended(error)
            raise
        (self.folder / "traceback.txt").unlink(missing_ok=True)
        self._status("done", files=self._checksums())

    def write_history(self, history: dict[str, list[float]]) -> None:
        """`history.csv`: one line a step of the search."""
        lines = io.StringIO()
        csv.writer(lines).writerows([list(history), *zip(*history.values(), strict=True)])
        write_text(self.folder / "history.csv", lines.getvalue())

    def write_predictions(self, predictions: list[dict[str, object]]) -> None:
        """`predictions.jsonl`: one line a query."""
        lines = [json.dumps(p, ensure_ascii=False) + "\n" for p in predictions]
        write_text(self.folder / "predictions.jsonl", "".join(lines))

    def _write_settings(self, config: Config, overrides: list[str]) -> None:
        write_text(self.folder / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False))
        write_text(self.folder / "overrides.yaml", yaml.safe_dump(overrides))
        manifest = {
            "signature": self.signature,
            "inputs": self.inputs,
            "seed": config.seed,
            "settings": settings(config),
            "origin": origin(config),
            "git": _git_sha(),
            "versions": versions(),
        }
        write_json(self.folder / "manifest.json", manifest)

    def _ended(self, error: BaseException) -> None:
        """Note how it ended, if the disk still takes that: the error itself is what the user must hear of."""
        with suppress(OSError):
            if stop := _stop(error):
                self._status("interrupted", error=stop)
                return
            write_text(self.folder / "traceback.txt", traceback.format_exc())
            self._status("failed", error=f"{type(error).__name__}: {error}")

    def _checksums(self) -> dict[str, str]:
        files = sorted(path for path in self.folder.iterdir() if path.is_file())
        return {p.name: checksum(p) for p in files if p.name not in _NOT_CHECKED and not p.name.startswith(".")}

    def _status(self, state: str, **rest: object) -> None:
        write_json(self.folder / "status.json", {"state": state, "at": datetime.now(UTC).isoformat(), **rest})


def _stop(error: BaseException) -> str | None:
    """The sentence for a run that was stopped, None for one that has failed."""
    if stop := interruption.received():
        return str(stop)
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "Stopped from the keyboard."
    return "Stopped by Slurm, and queued again." if isinstance(error, SystemExit) and error.code == _QUEUED else None


def versions() -> dict[str, str]:
    """Versions of what a result may depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def _git_sha() -> str | None:
    """Commit of the checkout that the code runs from, None for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
