"""A Ray of two workers on this machine (`make test-ray`): a sweep of its tasks ends in one table, and it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs the extra ray")

pytestmark = pytest.mark.ray
SWEEP = ["-m", "+experiment=smoke", "tracker=none", "launch=ray"]
ENVIRONMENT = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}  # no token in one's home
TWO = ["hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.include_dashboard=false"]


def sweep(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as a Ray is one a process."""
    command = [sys.executable, "-m", "stv_exp", *SWEEP, *words]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)


def test_tasks_of_ray_share_their_scan_fail_in_sentences_and_end_in_one_table(tmp_path):
    done = sweep(tmp_path, *TWO, "method.k=2,4", "dataset.support=16,2", "scan.shots=3")
    print(done.stdout, done.stderr)
    assert done.returncode == 1, "one for each that fails"
    assert done.stderr.count(": 3 demonstrations were asked for, but the support split of shapes") == 2
    assert len(list(tmp_path.glob("outputs/runs/*/metrics.json"))) == 2
    assert len(list(tmp_path.glob("outputs/stages/scan-*/record.json"))) == 1
    assert all(f"k={k} " in done.stdout for k in (2, 4)) and "Written to outputs/sweeps/smoke" in done.stdout


def test_a_cluster_that_runs_already_is_used_and_left_running(tmp_path):
    ray = str(Path(sys.executable).with_name("ray"))
    start = [ray, "start", "--head", "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats", "--port=0"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(start, cwd=elsewhere, env=ENVIRONMENT, check=True, capture_output=True, timeout=300)
    try:
        done = sweep(tmp_path, "hydra.launcher.ray.init.address=auto", "method=zero_shot", "seed=0,1")
        print(done.stdout, done.stderr)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(list(tmp_path.glob("outputs/runs/*/metrics.json"))) == 2
        assert not list(elsewhere.iterdir()), "jobs stand where the command stands"
        assert subprocess.run([ray, "status"], env=ENVIRONMENT, capture_output=True, timeout=120).returncode == 0
    finally:
        subprocess.run([ray, "stop"], check=True, capture_output=True, timeout=300)
