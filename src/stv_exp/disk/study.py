"""A study, `sweeps/<name>/`: the runs that are compared, one (empty) entry `<signature>.run` each.

Studies accumulate: sweeps and single runs add their entries, from any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stv_exp.disk.locks import locked


@dataclass(frozen=True)
class Study:
    """One study of an outputs folder."""

    outputs: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.outputs / "sweeps" / self.name

    def add(self, signature: str) -> bool:
        """Whether the run is new to the study, which then holds it."""
        entry = self.folder / f"{signature}.run"
        if entry.exists():
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        entry.touch()
        return True

    def shows(self, run: Path) -> bool:
        """Whether the tables were written after the end of a run."""
        table, status = self.folder / "runs.csv", run / "status.json"
        return table.is_file() and status.is_file() and table.stat().st_mtime >= status.stat().st_mtime

    def clear(self) -> None:
        """Start over: the runs themselves stay."""
        with locked(self.folder):
            for entry in self.folder.glob("*.run"):
                entry.unlink(missing_ok=True)

    def runs(self) -> Iterator[Path]:
        """The folders of its runs."""
        for entry in sorted(self.folder.glob("*.run")):
            yield self.outputs / "runs" / entry.stem
