"""Where tables can be written they are whole; where not, they are printed and one sentence says why."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stv_exp.disk.locks import locked
from stv_exp.report.comparison import report
from tests.report_runs import write_run


def command(*arguments: str, before: Sequence[str] = (), **rest: Any) -> subprocess.CompletedProcess[str]:
    """The command as a user calls it."""
    words = [*before, sys.executable, "-m", "stv_exp.report", *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, **rest)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a failed command says: one sentence."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture
def outputs(tmp_path) -> Path:
    write_run(tmp_path / "outputs", "run", ["cat"], ["cat"])
    return tmp_path / "outputs"


def with_modes(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command of a user for whom the modes of files hold: for root they do not."""
    if os.geteuid() != 0:
        return command(*arguments)
    if shutil.which("setpriv") is None:
        pytest.skip("root cannot give up its rights without setpriv")
    return command(*arguments, before=["setpriv", "--bounding-set=-dac_override,-dac_read_search"])


def test_a_folder_that_can_only_be_read_is_reported_all_the_same(outputs):
    for folder in (outputs, outputs / "runs"):
        folder.chmod(0o555)
    done = with_modes(str(outputs))
    outputs.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert "│ stv " in done.stdout
    assert (
        f"note: The tables were not written, as {outputs}/report can only be read (Permission denied)." in done.stdout
    )
    assert not (outputs / "report").exists()


@pytest.mark.parametrize("closed", ["", "runs", "runs/run", "runs/run/metrics.json"])
def test_what_cannot_be_read_is_said(outputs, closed):
    write_run(outputs, "other", ["cat"], ["cat"], method={"name": "other"})
    (outputs / closed).chmod(0)
    done = with_modes(str(outputs))
    (outputs / closed).chmod(0o755)
    if closed in ("", "runs"):
        assert said(done).startswith(f"Error: {outputs / closed} cannot be read (Permission denied); check")
        return
    assert done.returncode == 0 and "│ other " in done.stdout, done.stderr
    assert "Run run is damaged (" in done.stdout and "cannot be read (Permission denied)" in done.stdout


def test_a_full_disk_costs_the_files_and_not_what_is_printed(outputs):
    done = command(str(outputs), preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (200, 200)))
    assert said(done).startswith(f"Error: The tables could not be written to {outputs}/report (File too large); make")
    assert "│ stv " in done.stdout


def test_a_file_in_the_place_of_the_tables_is_said(outputs):
    (outputs / "report").touch()
    assert f"could not be written to {outputs}/report (File exists)" in said(command(str(outputs)))


@pytest.mark.parametrize("study", [None, "s"])
def test_a_report_waits_for_another_one_and_reads_what_that_has_left(outputs, study):
    folder = outputs / "sweeps/s" if study else outputs / "report"
    folder.mkdir(parents=True)
    (folder / "run.run").touch()
    (folder / "late.run").touch()
    thread = threading.Thread(target=report, args=(outputs, study))
    with locked(folder):
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        write_run(outputs, "late", ["cat"], ["cat"], method={"name": "late"})
    thread.join(60)
    assert set(pd.read_csv(folder / "table.csv")["method"]) == {"stv", "late"}


def test_tables_of_methods_that_are_gone_are_not_left_from_before(outputs):
    other = write_run(outputs, "other", ["cat"], ["cat"], method={"name": "other"})
    assert (report(outputs) / "paired.md").is_file()
    (other / "metrics.json").unlink()
    assert not list(report(outputs).glob("paired.*"))


def test_the_tilde_is_the_home_folder_also_in_quotes(outputs):
    done = command("~/outputs", env={**os.environ, "HOME": str(outputs.parent)})
    assert done.returncode == 0 and f"Written to {outputs}/report" in done.stdout, done.stderr
    assert said(command("~nobody-of-that-name/x")).startswith("Error: There is no finished run in ~nobody")


@pytest.mark.parametrize("name", ["nowhere", "[/INST]", "two\nlines"])
def test_a_folder_that_is_not_there_is_said_and_not_made(tmp_path, name):
    assert said(command(name, cwd=tmp_path)).startswith("Error: There is no finished run in ")
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_outputs_folder(tmp_path):
    (tmp_path / "file").touch()
    assert "file cannot be read (Not a directory)" in said(command("file", cwd=tmp_path))


def test_a_reader_who_has_seen_enough_causes_no_traceback(outputs):
    words = f"{sys.executable} -m stv_exp.report {outputs}"
    done = subprocess.run(f"{words} | head -c 1", shell=True, capture_output=True, text=True, timeout=120)
    assert done.stderr == "" and len(done.stdout) == 1


def test_a_full_disk_behind_the_printing_is_one_sentence(outputs):
    words = f"{sys.executable} -m stv_exp.report {outputs} > /dev/full"
    done = subprocess.run(words, shell=True, capture_output=True, text=True, timeout=120)
    assert said(done).startswith("Error: The report cannot be printed (No space left on device)")


def test_a_terminal_that_knows_ascii_only_gets_the_numbers(outputs):
    write_run(outputs, "again", ["cat"], ["cat"], seed=1)
    done = command(str(outputs), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "1.000" in done.stdout, done.stderr
