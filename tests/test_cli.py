"""The front door: what users type, and what they read when they mistype it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

from stv_exp.complaint import keys
from tests.forked import Ended, run

SMOKE = ["+experiment=smoke", "tracker=none"]


def stv_exp(*arguments: str, cwd: Path, module: str = "stv_exp") -> Ended:
    """Run the command as a user does."""
    return run(cwd, *arguments, module=module)


def typed(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own: what is told of seconds is told of this."""
    command = [sys.executable, "-m", "stv_exp", *arguments]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_SILENT": "true"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def test_smoke_runs_every_stage_in_under_45_seconds(tmp_path):
    start = time.monotonic()
    done = typed("+experiment=smoke", cwd=tmp_path)
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stdout + done.stderr
    (folder,) = (p for p in (tmp_path / "outputs/runs").iterdir() if p.is_dir())
    assert {"log.txt", "metrics.json", "config.yaml"} <= {p.name for p in folder.iterdir()}
    assert yaml.safe_load((folder / "overrides.yaml").read_text()) == ["+experiment=smoke"]
    assert (tmp_path / "outputs/wandb").is_dir(), "W&B is on by default, offline"
    assert seconds < 45


def test_help_and_the_resolved_config_answer_at_once(tmp_path):
    start = time.monotonic()
    assert "method: all_heads, few_shot" in typed("--help", cwd=tmp_path).stdout
    shown = typed("--cfg", "job", *SMOKE, cwd=tmp_path).stdout
    assert time.monotonic() - start < 6, "neither may import torch"
    config = yaml.safe_load(shown)
    assert config["model"]["name"] == "tiny" and config["policy"]["steps"] == 4
    assert not (tmp_path / "outputs").exists()


def test_shots_that_do_not_fit_the_context_are_refused(tmp_path):
    many = ["method=few_shot", "method.shots=200", "dataset.support=300"]
    done = stv_exp(*SMOKE, *many, cwd=tmp_path)
    assert done.returncode == 1
    assert (
        "Error: A prompt of 200 demonstrations and 201 pictures takes" in done.stderr
        and "but tiny holds 512" in done.stderr
    )


def test_what_is_refused_leaves_no_run(tmp_path):
    """Nor does a job that makes none: an empty folder would be called a damaged run."""
    assert stv_exp(*SMOKE, "method=few_shot", "policy.steps=5", cwd=tmp_path).returncode == 1
    assert stv_exp("+experiment=check_data", "dataset=words", "dataset.task=antonym", cwd=tmp_path).returncode == 0
    assert not list(tmp_path.glob("outputs/runs/*"))


def test_an_unknown_experiment_is_refused_with_the_choices(tmp_path):
    done = stv_exp("+experiment=smok", cwd=tmp_path)
    assert done.returncode == 1 and "experiment=smok is unknown; choose one of" in done.stderr


def test_a_sweep_shares_its_scan_and_ends_with_the_table(tmp_path):
    done = stv_exp("-m", *SMOKE, "method.k=2,4", "method.m=1,2", "seed=0,1", "study=k_and_m", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scans = [p for p in (tmp_path / "outputs/stages").glob("scan-*") if p.is_dir()]
    assert len(scans) == 2, "one a seed"
    assert all(f"stv_identity k={k} m={m}" in done.stdout for k in (2, 4) for m in (1, 2))
    written = {p.name for p in (tmp_path / "outputs/sweeps/k_and_m").iterdir()}
    assert {
        "table.md",
        "table.csv",
        "table.tex",
        "tasks.md",
        "accuracy.png",
        "rewards.png",
        "sensitivity.png",
    } <= written


def test_a_failed_job_does_not_lose_the_others(tmp_path):
    done = stv_exp("-m", *SMOKE, "method.k=99,4", cwd=tmp_path)
    assert done.returncode == 1 and "method.k=99: method.k=99 is not within" in done.stderr
    states = [json.loads(p.read_text())["state"] for p in tmp_path.rglob("status.json")]
    assert states == ["done"]
    assert "Refused: +experiment=smoke tracker=none method.k=99: method.k=99 is not" in done.stdout


def test_a_sweep_whose_jobs_all_fail_ends_in_sentences_too(tmp_path):
    done = stv_exp("-m", *SMOKE, "method.k=98,99", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Error: 2 of 2 jobs were refused and 0 have failed:" in done.stderr
    assert all(f"method.k={k} is not within" in done.stderr for k in (98, 99))


def _full_error() -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"


def test_the_traceback_is_shown_to_who_asks_for_it(tmp_path):
    assert "Traceback" in run(tmp_path, *SMOKE, "method.k=99", prepare=_full_error).stderr


def test_the_report_reads_what_is_on_disk(tmp_path):
    assert stv_exp(*SMOKE, cwd=tmp_path).returncode == 0
    done = stv_exp(cwd=tmp_path, module="stv_exp.report")
    assert done.returncode == 0 and "stv_identity" in done.stdout, done.stderr
    assert (tmp_path / "outputs/report/table.md").is_file()


def test_the_report_of_nothing_says_what_to_run(tmp_path):
    done = stv_exp("nowhere", cwd=tmp_path, module="stv_exp.report")
    assert done.returncode == 1 and "There is no finished run in nowhere" in done.stderr


def test_every_yaml_key_is_in_the_schema():
    known = set(keys())
    for path in (Path(__file__).parents[1] / "conf").glob("[!e]*/*.yaml"):
        values = yaml.safe_load(path.read_text()) or {}
        values.pop("defaults", None)  # Hydra's own
        if "@package" in path.read_text():
            continue  # composed from other groups; the tests above and below run them
        assert set(_dotted({path.parent.name: values})) <= known, path


def _dotted(values: dict, prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in values.items():
        found += _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return found
