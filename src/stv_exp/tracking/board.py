"""A study in W&B as a person wants to read it: a saved view of its runs, and a report.

They are made of what is on disk (which methods, tasks and curves there are) and filled by W&B from the runs that it
has: runs of the study that come later appear in both.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from stv_exp.tracker_config import TrackerConfig
from stv_exp.tracking import panels
from stv_exp.tracking.exhibit import Exhibit

_COLUMNS = ("summary:accuracy", "config:method.value.k", "config:method.value.m", "summary:cost.token_forwards")


@dataclass(frozen=True)
class Board:
    """The view and the report of `runs`, those of a `study` (None: all)."""

    runs: Sequence[Exhibit]
    study: str | None
    entity: str
    project: str

    @property
    def title(self) -> str:
        return f"{self.study or 'All runs'}: methods compared"

    @property
    def sections(self) -> dict[str, list[wr.Panel]]:
        """The panels, by what they show."""
        found = {"Accuracy over K by M": panels.k_by_m(), "Methods over tasks": self._methods()}
        if names := list(dict.fromkeys(name for run in self.runs for step in run.curve[:1] for name in step)):
            found["Curves of the search"] = panels.curves(names)
        return found | {"Cost against accuracy": panels.costs(), "Predictions": panels.predictions()}

    def view(self) -> ws.Workspace:
        """The saved view: one set of runs, the study's."""
        sections = [ws.Section(name=name, panels=drawn, is_open=True) for name, drawn in self.sections.items()]
        shown = ws.RunsetSettings(filters=panels.of_study(self.study), pinned_columns=list(_COLUMNS))
        where = {"entity": self.entity, "project": self.project}
        return ws.Workspace(**where, name=_without_symbols(self.title), sections=sections, runset_settings=shown)

    def report(self) -> wr.Report:
        """The report: the same panels under headings, the methods side by side for each task."""
        blocks: list[wr.Block] = [wr.TableOfContents()]
        for name, drawn in self.sections.items():
            runsets = self._by_method() if name == "Methods over tasks" else [self._runset("Runs")]
            blocks += [wr.H2(name), wr.PanelGrid(runsets=runsets, panels=drawn)]
        told = f"{len(self.runs)} runs, {len(self._values('method.name'))} methods."
        where = {"entity": self.entity, "project": self.project}
        return wr.Report(**where, title=self.title[:128], description=told, blocks=blocks, width="fluid")

    def _methods(self) -> list[wr.Panel]:
        return [panels.bars("task", panels.TASK), panels.bars("method", panels.METHOD)]

    def _by_method(self) -> list[wr.Runset]:
        return [self._runset(method, method) for method in self._values("method.name")]

    def _runset(self, name: str, method: str | None = None) -> wr.Runset:
        where = {"entity": self.entity, "project": self.project}
        return wr.Runset(**where, name=name, filters=panels.of_study(self.study, method))

    def _values(self, key: str) -> list[str]:
        return list(dict.fromkeys(str(run.values.get(key)) for run in self.runs))


def _without_symbols(title: str) -> str:
    """W&B takes no emoji in a view's name, and takes `=` and `+` for such."""
    return "".join("-" if unicodedata.category(c).startswith("S") else c for c in title)


def save(runs: Sequence[Exhibit], study: str | None, settings: TrackerConfig) -> list[str]:
    """Save both in W&B; their addresses."""
    entity = settings.entity or wandb.Api().default_entity or ""
    board = Board(runs, study, entity, settings.project)
    return [board.view().save().url, board.report().save().url]
