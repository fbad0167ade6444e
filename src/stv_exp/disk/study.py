"""A study, `sweeps/<name>/`: the runs that are compared, one entry `<signature>.run` each.

Studies accumulate: sweeps and single runs add their entries, from any number of processes. A sweep adds those of all
its jobs before the first one starts, so that anybody can see what is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from stv_exp.disk.files import read_json, write_json
from stv_exp.disk.locks import locked


@dataclass(frozen=True)
class Entry:
    """A run of a study: its title, and which job of how many it was in the sweep that added it last."""

    title: str = ""
    job: int = 0
    of: int = 0

    def __str__(self) -> str:
        return f"[{self.job}/{self.of}] {self.title}" if self.of else self.title


@dataclass(frozen=True)
class Study:
    """One study of an outputs folder."""

    outputs: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.outputs / "sweeps" / self.name

    def add(self, signature: str, entry: Entry) -> None:
        """Have the study hold a run; what it holds already in the same words is not written again."""
        if not self._path(signature).is_file() or (entry.of and self.entry(signature) != entry):
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder):  # whoever takes it next removes what is half-written
                write_json(self._path(signature), asdict(entry))

    def entry(self, signature: str) -> Entry:
        """What is known of a run of the study; nothing of one that an earlier version has added."""
        known = read_json(self._path(signature)) or {}
        title, job, of = (known.get(key) for key in ("title", "job", "of"))
        if isinstance(title, str) and isinstance(job, int) and isinstance(of, int):
            return Entry(title, job, of)
        return Entry()

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

    def _path(self, signature: str) -> Path:
        return self.folder / f"{signature}.run"
