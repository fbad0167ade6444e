"""A real Slurm of one node (`make test-slurm`): jobs as an array, preempted in their search, end in the whole table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import one_node_slurm
from tests.faults import differences
from tests.test_cli import stv_exp

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra slurm")

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(one_node_slurm.obstacle()), reason=one_node_slurm.obstacle() or "can be started"),
]
SWEEP = ["-m", "+experiment=smoke", "tracker=none", "policy.steps=2000", "seed=0,1", "study=preempted"]
SLURM = ["launch=slurm", "hydra.launcher.partition=all", "hydra.launcher.cpus_per_task=1"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Iterator[dict[str, str]]:
    with one_node_slurm.slurm(tmp_path_factory.mktemp("slurm") / "one") as found:
        yield found


def wait_for(met: Callable[[], bool], seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.2)


def test_preempted_jobs_go_on_where_they_were_and_the_table_is_complete(tmp_path, environment):
    def ask(*command: str) -> str:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    sweep = subprocess.Popen(
        [sys.executable, "-m", "stv_exp", *SWEEP, *SLURM],
        cwd=tmp_path,
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lambda: len(list(tmp_path.rglob("last.ckpt"))) == 2)
    jobs = sorted(ask("squeue", "--noheader", "--array", "--format=%i", "--states=running").split())
    ask("scontrol", "requeue", jobs[0])  # as a preemption: SIGTERM, SIGKILL, back into the queue
    ask("scancel", f"--signal={signal.SIGUSR2.name}", jobs[1])  # as at the end of its time: it queues itself again
    text, _ = sweep.communicate(timeout=400)
    print(text)
    assert sweep.returncode == 0, text
    assert "stv_identity" in text and "2 │" in text, "the table of both seeds"
    logs = "".join(path.read_text() for path in tmp_path.rglob("*.out"))
    print(logs)
    assert logs.count("The search goes on at step") == 2, logs
    for job in jobs:
        assert "Restarts=1" in ask("scontrol", "show", "job", job)
    local = tmp_path / "local"
    local.mkdir()
    assert stv_exp(*SWEEP, cwd=local).returncode == 0
    assert differences(tmp_path, local) == []


def test_a_job_that_fails_is_told_in_a_sentence_and_the_others_go_on(tmp_path, environment, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ | environment)
    few = ["method=few_shot", "method.shots=4", "dataset.support=2,16"]
    done = stv_exp("-m", "+experiment=smoke", "tracker=none", *few, *SLURM, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.text, done.text
    assert "dataset.support=2" in done.stderr and ": 4 demonstrations were asked for" in done.stderr
    assert len(list(Path(tmp_path).rglob("metrics.json"))) == 1
