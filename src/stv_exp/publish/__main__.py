"""`python -m stv_exp.publish [outputs] [options]` sends finished runs to W&B: those that are not there yet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stv_exp.data.files import expanded
from stv_exp.interruption import guarded
from stv_exp.publish.publication import check_board, finished, refused, saved, send
from stv_exp.ranges import Range, check_limit
from stv_exp.report.printing import written
from stv_exp.report.screen import print_line
from stv_exp.tracker_config import ENTITY, PROJECT, TrackerConfig
from stv_exp.tracking import title
from stv_exp.tracking.exhibit import Exhibit
from stv_exp.tracking.view import check


def main() -> int:
    """Entry point: the exit code."""
    given = _arguments()
    return written(lambda: _asked(given), "the outputs folder")


def _asked(given: argparse.Namespace) -> None:
    mode = given.mode or ("online" if given.workspace else "offline")
    settings = TrackerConfig(mode=mode, project=given.project, entity=given.entity, images=given.images)
    check_limit("--project", settings.project, PROJECT)
    check_limit("--entity", settings.entity, ENTITY)
    check_limit("--images", settings.images, Range(0))
    check_board(settings, given.workspace)
    _publish(expanded(given.outputs), given.study, settings, given.workspace)


def _publish(outputs: Path, study: str | None, settings: TrackerConfig, workspace: bool) -> None:
    notes: list[str] = []
    runs = finished(outputs, study, notes)
    for note in notes:
        print_line(f"note: {note}")
    check(settings)
    new = _sent(runs, settings)
    print_line(_ending(outputs, settings, new, len(runs) - new))
    if workspace:
        for address in saved(runs, study, settings):
            print_line(address)


def _sent(runs: Sequence[Exhibit], settings: TrackerConfig) -> int:
    """Send the runs; how many of them are new. Raises `StvError` for what W&B refuses."""
    new = 0
    for i, run in enumerate(runs, 1):
        with refused(f"the run {run.signature}"):
            is_new = send(run, settings)
        new += is_new
        print_line(f"[{i}/{len(runs)}] {title.name(run)}{'' if is_new else ': there already'}")
    return new


def _ending(outputs: Path, settings: TrackerConfig, new: int, old: int) -> str:
    count = f"{new} run{'s' * (new != 1)}"
    if settings.mode == "online":
        return f"{count} sent to the project {settings.project}; {old} there already."
    whole = outputs.resolve()  # `.` has no name of its own
    sync, above = f"`wandb sync {whole.name}/wandb/offline-run-*`", whole.parent
    here = "" if above == Path.cwd() else f" in {above}"
    return f"{count} written to {outputs / 'wandb'}; {old} there already. {sync}{here} sends them."


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stv_exp.publish", description=__doc__)
    parser.add_argument("outputs", nargs="?", default="outputs", help="outputs folder (default: outputs)")
    parser.add_argument("--study", help="only the runs of this study, as a group of that name")
    parser.add_argument("--project", default=TrackerConfig.project, help=f"default: {TrackerConfig.project}")
    parser.add_argument("--entity", default="", help="the user or team that it belongs to (default: your own)")
    parser.add_argument("--mode", choices=("offline", "online"), help="default: offline, and online with --workspace")
    parser.add_argument("--workspace", action="store_true", help="save a new view and a new report of the study too")
    parser.add_argument("--images", type=int, default=TrackerConfig.images, help="queries shown with their pictures")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(guarded(main))
