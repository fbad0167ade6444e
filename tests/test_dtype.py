"""`model.dtype=auto` is settled before anything depends on it, and a run says what it is and why."""

from __future__ import annotations

import json
import logging

import pytest
import torch
import yaml

from stv_exp.cli import configure
from stv_exp.config import Config, ModelConfig
from stv_exp.identity import signatures
from stv_exp.models import dtype
from stv_exp.models.loading import forget, load_backbone
from tests.test_cli import SMOKE, stv_exp

ZEN4 = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni\nbogomips\t: 5192.26\n"
SAPPHIRE_RAPIDS = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile\n"
HASWELL = "model name\t: avx512_bf16 is no flag here\nflags\t\t: fpu avx2 bmi2\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n"


@pytest.mark.parametrize(
    ("cpuinfo", "choice"),
    [
        (ZEN4, ("bfloat16", "this processor has avx512_bf16")),
        (SAPPHIRE_RAPIDS, ("bfloat16", "this processor has amx_bf16")),
        (HASWELL, ("float32", "this processor has no fast bfloat16")),
        (ARM, ("float32", "whether this processor has fast bfloat16 cannot be read here")),
        ("", ("float32", "whether this processor has fast bfloat16 cannot be read here")),
    ],
)
def test_a_processor_gets_bfloat16_only_with_instructions_for_it(cpuinfo, choice):
    assert dtype.on_cpu(cpuinfo) == choice


@pytest.mark.parametrize(("computes", "name"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_gets_bfloat16_where_it_does_not_emulate_it(monkeypatch, computes, name):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: computes or including_emulation)
    assert dtype.resolve("auto", "cuda")[0] == name


def test_mps_gets_float32():
    assert dtype.resolve("auto", "mps") == ("float32", "bfloat16 was not measured on mps")


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_dtype_that_is_named_stays_without_a_reason(name):
    assert dtype.resolve(name, "cpu") == (name, "")


def composed(*overrides: str) -> Config:
    """What the command line makes of its arguments."""
    return configure(*SMOKE, *overrides)


@pytest.mark.parametrize("cpuinfo", [ZEN4, HASWELL])
def test_auto_and_the_dtype_that_it_is_are_one_run(monkeypatch, cpuinfo):
    monkeypatch.setattr(dtype, "_cpuinfo", lambda: cpuinfo)
    name, _ = dtype.on_cpu(cpuinfo)
    auto, named = composed("model.dtype=auto"), composed(f"model.dtype={name}")
    assert auto == named and auto.model.dtype == name
    assert signatures(auto) == signatures(named)


def test_auto_on_another_machine_is_another_run(monkeypatch):
    found = set()
    for cpuinfo in (ZEN4, HASWELL):
        monkeypatch.setattr(dtype, "_cpuinfo", lambda text=cpuinfo: text)
        found.add(signatures(composed("model.dtype=auto")).run)
    assert len(found) == 2, "a study that moves does not mix dtypes"


def test_a_model_loaded_by_hand_resolves_auto_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(dtype, "_cpuinfo", lambda: HASWELL)
    dtype.say.cache_clear()
    forget()
    with caplog.at_level(logging.INFO):
        loaded = load_backbone(ModelConfig("tiny", dtype="auto"))
        assert load_backbone(ModelConfig("tiny", dtype="float32")) is loaded
        assert load_backbone(ModelConfig("tiny", dtype="auto")) is loaded
    assert loaded.model.dtype == torch.float32
    assert caplog.text.count("tiny: float32 (auto: this processor has no fast bfloat16)") == 1
    assert caplog.text.count("(auto:") == 1


def test_a_run_says_which_dtype_and_why_and_records_the_dtype(tmp_path):
    done = stv_exp("-m", *SMOKE, "model.dtype=auto", "method=zero_shot,few_shot", "method.shots=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    name, reason = dtype.resolve("auto", "cpu")
    assert (done.stdout + done.stderr).count(f"tiny: {name} (auto: {reason})\n") == 1, "once for the jobs of a sweep"
    for file in tmp_path.glob("outputs/runs/*/config.yaml"):
        assert yaml.safe_load(file.read_text())["model"]["dtype"] == name
        assert json.loads((file.parent / "manifest.json").read_text())["settings"]["model"]["dtype"] == name
