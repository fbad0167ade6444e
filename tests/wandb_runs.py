"""What W&B has kept of runs, read back from its offline folders without a server."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class OfflineRun:
    """An `offline-run-*` folder: its records as W&B's own reader tells them."""

    folder: Path

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def run(self) -> dict[str, Any]:
        return self.of("run")[0]

    @property
    def config(self) -> dict[str, Any]:
        found = dict(self.run["config"]["update"])
        for record in self.of("config"):
            found |= record["update"]
        return found

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for record in self.of("summary"):
            found |= record["update"]
        return found

    @property
    def artifacts(self) -> dict[str, dict[str, Any]]:
        return {artifact["type"]: artifact for artifact in self.of("artifact")}

    @property
    def staged(self) -> list[str]:
        """Paths of the files that artifacts hold, as they are written in the records."""
        return [entry["local_path"] for a in self.of("artifact") for entry in a["manifest"].get("contents", [])]

    def table(self, name: str) -> dict[str, Any]:
        (path,) = (self.folder / "files/media/table").glob(f"{name}_*.table.json")
        return json.loads(path.read_text())


def offline_runs(outputs: Path) -> list[OfflineRun]:
    """In the order in which they were started."""
    return [OfflineRun(folder) for folder in sorted((outputs / "wandb").glob("offline-run-*"))]
