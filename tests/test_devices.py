"""Scan and evaluation on several devices, here two processes of one CPU, and a GPU a process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock

from stv_exp import memory
from stv_exp.config import Config
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError
from stv_exp.models import gpu
from stv_exp.models.backbone import COUNTED, Backbone
from stv_exp.stages.evaluate import evaluate
from stv_exp.stages.scan import scan
from tests.conftest import with_method


@pytest.fixture
def two(config):
    """Two devices; more items than batches of 5 divide evenly among them."""
    return replace(config, trainer=replace(config.trainer, devices=2, batch_size=5, progress_bar=False))


def counts(backbone: Backbone) -> list[float]:
    return [getattr(backbone, name) for name in COUNTED]


def on_both(backbone: Backbone, two: Config, stage: Callable[[Config], Any]) -> list[Any]:
    """What a stage finds on one device and on two, which count the same."""
    found, spent = [], []
    for config in (replace(two, trainer=replace(two.trainer, devices=1)), two):
        before = counts(backbone)
        found.append(stage(config))
        spent.append([now - then for now, then in zip(counts(backbone), before, strict=True)])
    assert spent[0] == spent[1]
    return found


@pytest.mark.slow
def test_two_devices_answer_as_one_does_in_its_order(backbone, task, two):
    prompting = with_method(two, where="none", shots=2)
    one, same = on_both(backbone, prompting, lambda config: evaluate(backbone, task, None, config))
    assert [p.id for p in same] == [e.id for e in task.evaluation] and same == one


@pytest.mark.slow
def test_two_devices_scan_as_one_does(backbone, task, two):
    one, same = on_both(backbone, two, lambda config: scan(backbone, task, config))
    assert torch.equal(one.with_demonstrations, same.with_demonstrations) and torch.equal(one.alone, same.alone)


@pytest.mark.slow
def test_what_goes_wrong_in_another_process_is_its_sentence(backbone, two):
    examples = [tuple(Example(f"{n}{i}", (_lost,), "what?", ("a",)) for i in range(12)) for n in ("s", "e")]
    with pytest.raises(StvError, match="the disk with the pictures is gone"):
        evaluate(backbone, Task("own", *examples), None, with_method(two, where="none", shots=0))


def _lost() -> None:
    raise StvError("the disk with the pictures is gone")


def test_examples_that_cannot_leave_their_process_are_refused(backbone, two):
    examples = [tuple(Example(f"{n}{i}", (lambda: None,), "what?", ("a",)) for i in range(12)) for n in ("s", "e")]
    with pytest.raises(StvError, match=r"trainer.devices=2 hands examples to other processes"):
        evaluate(backbone, Task("own", *examples), None, with_method(two, where="none", shots=0))


def test_a_model_of_ones_own_cannot_be_copied_and_says_so(backbone, task, two):
    own = Backbone(backbone.model, backbone.processor, "own")
    with pytest.raises(StvError, match=r"own was not loaded by load_backbone.*trainer.devices=1"):
        evaluate(own, task, None, with_method(two, where="none", shots=0))


def test_a_process_takes_a_gpu_that_no_other_has_taken(tmp_path, monkeypatch):
    """As far as that can be seen without one: torch is told of three."""
    taken = []
    monkeypatch.setattr(gpu, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"u{i}"))
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    others = [FileLock(tmp_path / f"stv_exp-gpu-u{i}.lock") for i in (0, 1)]
    with others[0], others[1]:
        mine = gpu.take.__wrapped__()
        assert taken == [2] and gpu.take.__wrapped__() is None, "the fourth process shares"
    mine.release()


def test_memory_of_a_run_on_the_cpu_is_the_processs_also_beside_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    memory.forget_peak(torch.device("cpu"))
    assert memory.peak(torch.device("cpu")) > 2**20
