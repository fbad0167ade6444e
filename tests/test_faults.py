"""Faults injected into whole runs: whatever happens, nothing is lost, and the same command ends with the same result.

`make faults` strikes at every file operation and prints survived / tried; of each kind `make test` tries a few.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import faults
from tests.forked import Ended, Prepare, run, start

RUN = ["+experiment=smoke", "tracker=none", "policy.steps=6"]
SWEEP = ["-m", *RUN, "method.m=1,2"]
FEW = 1  # of each kind in `make test`
ALL = [pytest.mark.faults, pytest.mark.timeout(7200)]
PARTS = 4  # of all of a kind, for several processes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    """A folder in which the command has run undisturbed."""
    folder = tmp_path_factory.mktemp("clean")
    assert run(folder, *RUN).returncode == 0
    return folder


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[Path, float]:
    """The same for the sweep, with its seconds."""
    folder, begun = tmp_path_factory.mktemp("swept"), time.monotonic()
    assert run(folder, *SWEEP).returncode == 0
    return folder, time.monotonic() - begun


@pytest.fixture(scope="module")
def n_operations(tmp_path_factory) -> int:
    return faults.operations(tmp_path_factory.mktemp("counted"), *RUN)


@pytest.fixture(
    params=[
        "few",
        *(pytest.param(i, id=f"all-{i}", marks=ALL) for i in range(PARTS)),
    ]
)
def some(request) -> Callable[[list], list]:
    """A few of the cases, spread over all, or one part of all of them."""
    if request.param == "few":
        return lambda cases: [cases[(2 * i + 1) * len(cases) // (2 * FEW)] for i in range(FEW)]
    return lambda cases: cases[request.param :: PARTS]


@pytest.fixture
def folders(tmp_path) -> Iterator[Path]:
    return (_made(tmp_path / str(i)) for i in range(10**6))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _survives(folder: Path, words: list[str], expected: Path, right: Callable[[Ended], str], prepare: Prepare) -> str:
    """What is wrong about a run with a fault, or about the same command after it; empty for nothing."""
    struck = run(folder, *words, prepare=prepare)
    if wrong := right(struck) or _no_traceback(struck):
        return f"{wrong}: {struck.returncode} {struck.text[-2000:]}"
    return _repaired(folder, words, expected)


def _repaired(folder: Path, words: list[str], expected: Path) -> str:
    again = run(folder, *words)
    if again.returncode or "Traceback" in again.text:
        return f"the same command fails after it: {again.returncode} {again.text[-2000:]}"
    if other := faults.differences(folder, expected):
        return f"the same command ends with another result: {other}"
    if left := faults.leftovers(folder):
        return f"left behind: {left}"
    shutil.rmtree(folder)
    return ""


def _no_traceback(ended: Ended) -> str:
    return "a traceback" if "Traceback" in ended.text else ""


def _killed(ended: Ended) -> str:
    return "" if ended.returncode in (-signal.SIGKILL, 0) else "neither killed nor done"


def _one_sentence(ended: Ended) -> str:
    told = ended.returncode == 1 and ended.text.count("Error: ") == 1
    return "" if told or ended.returncode == 0 else "no sentence"


def _stopped(ended: Ended) -> str:
    if ended.returncode == 0:
        return ""
    told = "what is finished is kept, and the same command goes on" in ended.text
    return "" if told and ended.returncode in (128 + signal.SIGTERM, 128 + signal.SIGINT) else "not stopped in order"


def _count(record: Callable[[str, object], None], kind: str, wrongs: Iterable[str]) -> None:
    """Note survived / tried, and fail with what went wrong."""
    wrongs = list(wrongs)
    lost = [wrong for wrong in wrongs if wrong]
    record("survived", (kind, len(wrongs) - len(lost), len(wrongs)))
    assert not lost, "\n\n".join(lost)


def test_a_kill_at_any_file_operation_costs_nothing(record_property, some, folders, clean, n_operations):
    cases = some(list(range(n_operations)))
    _count(
        record_property,
        "kills at a file operation",
        (_survives(next(folders), RUN, clean, _killed, faults.AtOperation(n, faults.kill)) for n in cases),
    )


def test_a_disk_that_is_full_from_any_file_operation_on_is_told_in_a_sentence(
    record_property, some, folders, clean, n_operations
):
    cases = some(list(range(n_operations)))
    full = (faults.AtOperation(n, faults.full_disk, again=True) for n in cases)
    _count(
        record_property,
        "full disks",
        (_survives(next(folders), RUN, clean, _one_sentence, prepare) for prepare in full),
    )


def test_a_file_that_can_only_be_written_in_part_is_told_in_a_sentence(record_property, some, folders, clean):
    sizes = some([0, 1, 10, 50, 100, 200, 400, 700, 1000, 1500, 2000, 4000, 7000, 10_000, 20_000])
    _count(
        record_property,
        "short files",
        (_survives(next(folders), RUN, clean, _one_sentence, partial(faults.small_files, n)) for n in sizes),
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_file_operation_stops_a_run_in_order(
    record_property, some, folders, clean, n_operations, number
):
    cases = some(list(range(0, n_operations, 3)))
    struck = (faults.AtOperation(n, partial(faults.signalled, number)) for n in cases)
    _count(
        record_property,
        f"{number.name} at a file operation",
        (_survives(next(folders), RUN, clean, _stopped, p) for p in struck),
    )


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGKILL))],
)
def test_a_signal_at_any_moment_stops_a_sweep_in_order(record_property, some, folders, swept, number):
    folder, seconds = swept
    moments = some(sorted(random.Random(0).uniform(0, seconds) for _ in range(20)))
    right = _killed if number == signal.SIGKILL else _stopped
    struck = (partial(faults.after, moment, number) for moment in moments)
    _count(
        record_property,
        f"{number.name} in a sweep",
        (_survives(next(folders), SWEEP, folder, right, p) for p in struck),
    )


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-2] + b"~~"),
    "{}": lambda path: path.write_text("{}"),
    "null": lambda path: path.write_text("null"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def test_a_damaged_file_is_made_anew_and_the_report_goes_on(record_property, some, folders, clean):
    outputs = clean / "outputs"
    files = [p.relative_to(clean) for p in sorted(outputs.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    kept = [f for f in files if f.parts[1] in ("runs", "stages") and f.name not in ("log.txt",)]
    cases = some([(file, damage) for file in kept for damage in DAMAGES])

    def damaged(file: Path, damage: str) -> str:
        folder = next(folders)
        shutil.copytree(outputs, folder / "outputs")
        DAMAGES[damage](folder / file)
        seen = run(folder, module="stv_exp.report")
        if "Traceback" in seen.text:
            return f"{file} {damage}: the report fails: {seen.text[-2000:]}"
        wrong = _repaired(folder, RUN, clean)
        return f"{file} {damage}: {wrong}" if wrong else ""

    _count(record_property, "damaged files", (damaged(*case) for case in cases))


@pytest.mark.slow
def test_sweeps_of_one_study_at_once_end_with_one_complete_table(folders, swept):
    folder, (expected, _) = next(folders), swept
    waiting = [start(folder, "-m", *RUN, f"method.m={m}") for m in ("1,2", "2,1", "1", "2")]
    ended = [wait() for wait in waiting]
    assert [e.returncode for e in ended] == [0] * 4, "\n".join(e.text for e in ended)
    assert not faults.differences(folder, expected)
    table = (folder / "outputs/sweeps/smoke/runs.csv").read_text().splitlines()
    assert len(table) == 1 + 2
    assert not faults.leftovers(folder)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="rights are given up by capset(2)")
def test_a_finished_folder_that_can_only_be_read_is_looked_up_and_reported(folders, clean):
    folder = next(folders)
    shutil.copytree(clean / "outputs", folder / "outputs")
    _read_only(folder)
    for module, words in (("stv_exp", RUN), ("stv_exp.report", [])):
        ended = run(folder, *words, module=module, prepare=faults.without_roots_rights)
        assert ended.returncode == 0 and "Traceback" not in ended.text, ended.text
    refused = run(folder, *RUN, "seed=7", prepare=faults.without_roots_rights)
    assert refused.returncode == 1 and not _one_sentence(refused) and "Traceback" not in refused.text, refused.text


def _read_only(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
