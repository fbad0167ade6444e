"""The wheel holds everything a user needs and the package points one way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_ships_the_conf_and_the_testbed(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"stv_exp/conf/config.yaml", "stv_exp/conf/experiment/quickstart.yaml"} <= names
    assert {"stv_exp/testbed/weights/model.safetensors", "stv_exp/testbed/weights/tokenizer.json"} <= names
    assert wheel.stat().st_size < 8e6


@pytest.mark.slow
def test_the_installed_wheel_runs_the_smoke_job_from_another_folder(wheel, tmp_path):
    """In an environment of its own: dependencies come from this one, the package only from the wheel."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    command = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    # A path entry, unlike a site folder, does not process the .pth file of an editable install.
    env = {**os.environ, "PYTHONPATH": sysconfig.get_paths()["purelib"], "WANDB_SILENT": "true"}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = [python, "-c", "import stv_exp; print(stv_exp.__file__)"]
    found = subprocess.run(where, cwd=elsewhere, env=env, capture_output=True, text=True, check=True).stdout
    assert str(tmp_path / "env") in found
    smoke = [python, "-m", "stv_exp", "+experiment=smoke"]
    done = subprocess.run(smoke, cwd=elsewhere, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(elsewhere.glob("outputs/runs/*/metrics.json"))


def test_importing_the_package_and_its_command_line_is_light():
    code = (
        "import sys, stv_exp.cli; print([m for m in ('torch', 'transformers', 'faiss', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_unpickled():
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text, path
        safe = re.findall(r"torch\.load\([^()]*, weights_only=True\)", text)  # tensors and numbers
        assert text.count("torch.load") == len(safe), path


def test_files_stay_short():
    for path in (ROOT / "src").rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path
