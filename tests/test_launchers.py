"""Launchers and sweepers of others: each job runs as in one process, and what is missing is named with its extra."""

from __future__ import annotations

import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from stv_exp.cli import Job
from stv_exp.complaint import complaint
from stv_exp.compose import config_folder, to_config
from stv_exp.interruption import Interrupted
from tests.forked import Ended, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")

ROOT = Path(__file__).parents[1]
SMOKE = ["-m", "+experiment=smoke", "tracker=none"]
# Two splits of one picture each; importing it says how many threads there are.
LOADER = """
from functools import partial
import torch
from PIL import Image
from stv_exp.data.task import Example, Task

print(f"{torch.get_num_threads()} threads")

def load(config):
    def split(name, n):
        return tuple(Example(f"{name}{i}", (partial(Image.new, "RGB", (32, 32)),), "what?", ("a",)) for i in range(n))
    return Task(config.name, split("support", config.support), split("eval", config.eval))
"""


def launched() -> list[str]:
    """The commands of docs/clusters.md that a test of the docs cannot run."""
    blocks = re.findall(r"```shell\n(.*?)```", (ROOT / "docs/clusters.md").read_text(), flags=re.DOTALL)
    return "".join(blocks).splitlines()


@pytest.fixture(scope="module")
def side_by_side(tmp_path_factory) -> tuple[Path, Ended]:
    """A sweep of two processes: two jobs that share a scan, one that asks for what the data do not hold."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    folder = tmp_path_factory.mktemp("joblib")
    for name, text in {"dataset/own.yaml": "name: own\nloader: own\ntask: plain\n", "own.py": LOADER}.items():
        path = folder / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    words = [*SMOKE, "launch=joblib", "dataset=own", "study_fresh=true", "method.k=2,4", "dataset.support=16,2"]
    command = [sys.executable, "-m", "stv_exp", "--config-dir", "mine", *words, "dataset.eval=4", "scan.shots=3"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    # Not forked: joblib's processes end with an interpreter that ends as usual, and else idle for minutes.
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    return folder, Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
def test_jobs_side_by_side_share_their_scan_and_end_in_one_table(side_by_side):
    folder, done = side_by_side
    assert len(list(folder.glob("outputs/runs/*/metrics.json"))) == 2, done.text
    assert len(list(folder.glob("outputs/stages/scan-*/record.json"))) == 1
    assert all(f"k={k} " in done.stdout for k in (2, 4)) and "Written to outputs/sweeps/smoke" in done.stdout
    assert len(list(folder.glob("outputs/sweeps/smoke/*.run"))) == 4, "no process starts the study over for another"


@pytest.mark.slow
def test_a_failure_in_another_process_is_a_sentence_and_the_others_go_on(side_by_side):
    _, done = side_by_side
    assert done.returncode == 1 and "Traceback" not in done.text, done.text
    assert "Error: 0 of 4 jobs were refused and 2 have failed" in done.stderr
    assert done.stderr.count(": 3 demonstrations were asked for, but the support split of own has 2") == 2


@pytest.mark.slow
def test_cores_are_divided_among_the_processes_of_a_machine(side_by_side):
    import joblib

    _, done = side_by_side
    share = max(1, joblib.cpu_count() // 2)
    threads = {line for line in done.stdout.splitlines() if line.endswith(" threads")}
    assert f"{share} threads" in threads, "as the loader beside the dataset's YAML says, which other processes find too"


def test_a_stop_finds_its_way_between_processes():
    stop = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM)))
    assert stop.exit_code == 143 and str(stop).startswith("Stopped by SIGTERM; what is finished is kept")


@pytest.mark.parametrize(
    ("choice", "extra"),
    [
        ("hydra/launcher/joblib", "'stv_exp[joblib]'"),
        ("hydra/launcher/submitit_slurm", "'stv_exp[slurm]'"),
        ("hydra/launcher/ray", "'stv_exp[ray]'"),
        ("hydra/sweeper/optuna", "'stv_exp[optuna]'"),
    ],
)
def test_a_missing_plug_in_names_its_extra(choice, extra):
    said = complaint(MissingConfigException("not there", choice, ["basic"]))
    group, _, name = choice.rpartition("/")
    assert said == f"{group}={name} needs a plug-in of Hydra; run: pip install {extra}."


def test_every_launcher_and_sweeper_of_a_group_names_one_of_hydras():
    named = {p.stem: yaml.safe_load(p.read_text())["defaults"][0] for p in ROOT.glob("conf/launch/*.yaml")}
    assert {name: found["override /hydra/launcher"] for name, found in named.items()} == {
        "local": "basic",
        "joblib": "joblib",
        "slurm": "submitit_slurm",
        "ray": "ray",
    }


@pytest.mark.slow
def test_optuna_maximises_the_validation_score(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra optuna")
    trials = ["hydra.sweeper.n_trials=3", "dataset.validation=4", "method.k=range(2,6)"]
    done = run(tmp_path, *SMOKE, "sweeper=optuna", *trials)
    assert done.returncode == 0, done.text
    planned = run(tmp_path, *SMOKE, "sweeper=optuna", *trials, "plan=true")
    assert planned.returncode == 1 and "plan=true is for sweeper=grid" in planned.stderr
    best = yaml.safe_load((tmp_path / "outputs/sweeps/smoke/optimization_results.yaml").read_text())
    scores = [yaml.safe_load(p.read_text())["validation_accuracy"] for p in tmp_path.rglob("metrics.json")]
    assert best["best_value"] == max(scores) and "Written to outputs/sweeps/smoke" in done.stdout


def test_a_command_stands_in_its_own_folder_and_modules_in_another_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    packed = pickle.dumps(Job())
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "path", [])
    pickle.loads(packed)
    assert Path.cwd() == tmp_path and str(tmp_path / "mine") in sys.path


@pytest.mark.parametrize("command", launched())
def test_a_command_of_the_docs_that_launches_elsewhere_composes(command):
    """Each is run by a test of its launcher, with other words; here it is seen that all its settings exist."""
    overrides = [word.split(",")[0] for word in shlex.split(command)[4:] if "(" not in word]
    try:
        with initialize_config_dir(config_folder(), version_base="1.3"):
            composed = compose("config", overrides, return_hydra_config=True)
    except MissingConfigException as error:
        pytest.skip(str(complaint(error)))
    assert OmegaConf.to_container(composed.hydra.launcher, resolve=True)
    to_config(composed)
