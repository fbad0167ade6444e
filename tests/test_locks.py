"""Jobs that need the same stage, from processes that know nothing of each other but the folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from stv_exp.disk.locks import is_held, locked

# Takes the lock of a folder as a job does for a stage: makes what is missing, says what it has found.
JOB = """
import json, sys, time
from pathlib import Path
from stv_exp.disk.files import read_json, replaced_folder, write_json
from stv_exp.disk.locks import locked

sys.stdin.readline()
for i in range(20):
    folder = Path(sys.argv[1]) / f"scan-{i}"
    with locked(folder):
        if read_json(folder / "record.json") is None:
            with replaced_folder(folder) as new:
                time.sleep(0.01)
                write_json(new / "record.json", {"by": sys.argv[2]})
            print(i, flush=True)
"""
HOLD = """
import sys, time
from pathlib import Path
from stv_exp.disk.locks import locked

with locked(Path(sys.argv[1])):
    Path(sys.argv[1]).with_name(".held.tmp-half").touch()
    print("held", flush=True)
    time.sleep(600)
"""


def started(script: str, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_of_two_processes_one_makes_each_of_20_stages_and_the_other_finds_it(tmp_path):
    both = [started(JOB, tmp_path, name) for name in ("one", "other")]
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    made = [process.communicate(timeout=120)[0].split() for process in both]
    assert sorted(made[0] + made[1], key=int) == [str(i) for i in range(20)], "each once"
    records = [json.loads((tmp_path / f"scan-{i}/record.json").read_text())["by"] for i in range(20)]
    assert records.count("one") == len(made[0])
    assert not list(tmp_path.glob("*.tmp-*")) and not list(tmp_path.glob(".*.tmp-*"))


def test_what_a_dead_process_held_is_taken_over_and_cleared_up(tmp_path):
    folder = tmp_path / "held"
    with started(HOLD, folder) as holder:
        assert holder.stdout.readline() == "held\n" and is_held(folder)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert not is_held(folder)
    with locked(folder):
        assert json.loads((tmp_path / ".held.holder").read_text())["pid"] == os.getpid()
        assert not list(Path(tmp_path).glob(".held.tmp-*"))
