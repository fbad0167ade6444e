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

    def add(self, signature: str) -> None:
        """Have the study hold a run; what it holds already is not written again."""
        entry = self.folder / f"{signature}.run"
        if not entry.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            entry.touch()

    @property
    def is_drawn(self) -> bool:
        """Whether its tables were written after every entry and after the latest news of every run."""
        table = self.folder / "runs.csv"
        news = [*self.folder.glob("*.run"), *(run / "status.json" for run in self.runs())]
        return table.is_file() and all(n.stat().st_mtime <= table.stat().st_mtime for n in news if n.is_file())

    def clear(self) -> None:
        """Start over: the runs themselves stay."""
        with locked(self.folder):
            for entry in self.folder.glob("*.run"):
                entry.unlink(missing_ok=True)

    def runs(self) -> Iterator[Path]:
        """The folders of its runs."""
        for entry in sorted(self.folder.glob("*.run")):
            yield self.outputs / "runs" / entry.stem
