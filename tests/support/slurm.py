"""A real Slurm with one node, this machine, for a test."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from support.stores import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "scontrol")
WHERE = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
KillWait=60
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """munged, slurmctld and slurmd in `folder`, with ports and a key of their own."""

    def __init__(self, folder: Path) -> None:
        """Start them, and wait until the node is there.

        Skips where Slurm is not installed, or may not be run by this user.
        """
        if missing := [one for one in PROGRAMS if shutil.which(one, path=WHERE) is None]:
            pytest.skip(f"needs Slurm (apt install slurm-wlm): {', '.join(missing)}")
        self._folder = folder
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        words = {
            "host": socket.gethostname().partition(".")[0],
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "folder": folder,
            "ports": free_ports(2),
        }
        (folder / "slurm.conf").write_text(CONFIGURATION.format(**words))
        inherited = {key: text for key, text in os.environ.items() if "SLURM" not in key}
        self.environment = {**inherited, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": WHERE}
        munged = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        try:
            self.run("munged", *munged, f"--socket={folder}/munge.socket", "--force")
            self.run("slurmctld", "-c")
            self.run("slurmd", "-c")
            self._wait()
        except BaseException:
            self.end()
            raise

    def run(self, *command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's programs; it must succeed."""
        done = self.ask(*command, cwd=cwd)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def ask(self, *command: object, cwd: Path | None = None, **environment: str):
        """Run one of Slurm's programs."""
        words = [shutil.which(str(command[0]), path=WHERE) or command[0], *command[1:]]
        return subprocess.run(
            list(map(str, words)),
            cwd=cwd or self._folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def state(self, job: str) -> str:
        """Of a job, as `RUNNING`."""
        told = self.run("scontrol", "--oneliner", "show", "job", job).stdout
        return told.partition("JobState=")[2].partition(" ")[0]

    def end(self) -> None:
        """Stop all of it, what it runs first."""
        for job in self.ask("squeue", "--noheader", "--format=%i").stdout.split():
            self.ask("scancel", "--full", "--signal=KILL", job)
            self.ask("scancel", job)
        deadline = time.monotonic() + 90
        while self.ask("squeue", "--noheader").stdout.strip() and time.monotonic() < deadline:
            time.sleep(0.5)
        self.ask("scontrol", "shutdown")
        with_pid = self._folder / "munge.pid"
        if with_pid.exists():
            os.kill(int(with_pid.read_text()), 15)

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while "idle" not in self.run("sinfo", "--noheader", "--format=%t").stdout:
            assert time.monotonic() < deadline, (self._folder / "slurmd.log").read_text()
            time.sleep(0.2)
