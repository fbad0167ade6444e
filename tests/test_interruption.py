"""A run that is stopped says so, wherever it is; Slurm's variables decide nothing."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from stv_exp import interruption
from stv_exp.interruption import Interrupted, guarded, interruptible
from stv_exp.pipeline import run
from stv_exp.stages.evaluate import Evaluation
from stv_exp.stages.search import CandidateSearch


def states(config) -> list[str]:
    return [json.loads(p.read_text())["state"] for p in Path(config.outputs).rglob("status.json")]


@pytest.mark.parametrize(("stage", "hook"), [(CandidateSearch, "training_step"), (Evaluation, "predict_step")])
def test_ctrl_c_in_a_script_of_ones_own_stays_a_keyboard_interrupt(config, monkeypatch, stage, hook):
    """Lightning turns it into an exit with code 1."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, hook, stop)
    with pytest.raises(KeyboardInterrupt):
        run(config, [])
    assert states(config) == ["interrupted"]


def test_a_signal_whose_exception_got_lost_stops_at_the_next_batch(config, monkeypatch):
    asked = []

    def swallow(self, batch, batch_idx):
        asked.append(batch_idx)
        with suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
        return [""] * len(batch)

    monkeypatch.setattr(Evaluation, "predict_step", swallow)
    config.trainer.batch_size = 4
    with interruptible(), pytest.raises(Interrupted):
        run(config, [])
    assert asked == [0] and states(config) == ["interrupted"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_exit_code_is_that_of_the_signal_also_where_an_import_fails_of_it(capsys, number, code):
    def half_imported() -> int:
        try:
            signal.raise_signal(number)
        except BaseException as error:
            raise AttributeError("partially initialized module") from error
        return 0

    before = signal.getsignal(number)
    try:
        assert guarded(half_imported) == code
    finally:
        logging.disable(logging.NOTSET)
    shown = capsys.readouterr().err
    assert shown.startswith(f"Stopped by {number.name}; what is finished is kept, and the same command goes on")
    assert shown.count("\n") == 1
    assert signal.getsignal(number) is before and interruption.received() is None


def test_slurms_variables_do_not_matter(config, monkeypatch):
    reference = run(config, [])
    slurm = {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    for name, value in {**slurm, "SLURM_JOB_NAME": "sweep", "SLURM_STEP_NUM_NODES": "1"}.items():
        monkeypatch.setenv(name, value)
    config.outputs += "-of-slurm"
    assert run(config, [])["accuracy"] == reference["accuracy"]


def test_a_signal_ends_the_process_at_once_the_second_time():
    before = signal.getsignal(signal.SIGTERM)
    with interruptible():
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("broken", [True, False])
def test_an_output_that_nobody_reads_ends_a_command_without_a_word_and_another_pipe_does_not(broken):
    """As behind `| head`."""
    own = "sys.stdout" if broken else "open(other, 'w')"
    code = (
        "import os, sys; from stv_exp.interruption import guarded; reader, other = os.pipe(); os.close(reader)\n"
        f"def main():\n    print('text', file={own}, flush=True)\n    return 0\n"
        "sys.exit(guarded(main))"
    )
    reader, writer = os.pipe()
    if broken:
        os.close(reader)
    ended = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1 and ("BrokenPipeError" in ended.stderr) == (not broken)
    assert bool(ended.stderr) == (not broken)
