"""A Slurm of one node in a folder of its own: nothing outside is configured, and all of it ends."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "squeue", "scancel")
_CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmctldPort={port}
SlurmdPort={other_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=3
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def obstacle() -> str:
    """Why Slurm cannot be started here, in words; empty where it can."""
    if sys.platform != "linux" or os.getuid():
        return "slurmd must be started by root, on Linux"
    missing = [program for program in PROGRAMS if _found(program) is None]
    return f"{', '.join(missing)} not found; on Debian: apt-get install slurm-wlm munge" if missing else ""


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start it; the environment in which `sbatch` and the others find it."""
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    started: list[subprocess.Popen[bytes]] = []
    try:
        for words in _services(folder):
            command = [str(_found(words[0])), *words[1:]]
            with (folder / f"{words[0]}.log").open("wb") as log:
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            time.sleep(1)  # each needs the one before it
        yield environment
    finally:
        subprocess.run([str(_found("scancel")), "--user=root"], env=environment, check=False, timeout=20)
        for process in reversed(started):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            process.kill()


def _services(folder: Path) -> list[list[str]]:
    """Their command lines, after writing what they read."""
    (folder / "state").mkdir(parents=True)
    (folder / "spool").mkdir()
    key, configuration = folder / "munge.key", folder / "slurm.conf"
    key.touch(mode=0o400)
    key.write_bytes(os.urandom(1024))
    names = {"host": socket.gethostname().split(".")[0], "user": "root", "cores": os.cpu_count()}
    ports = {"port": _free_port(), "other_port": _free_port()}
    configuration.write_text(_CONFIGURATION.format(folder=folder, **names, **ports))
    files = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
    return [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files],
        ["slurmctld", "-D", "-f", str(configuration)],
        ["slurmd", "-D", "-f", str(configuration), "-N", str(names["host"])],
    ]


def _found(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
