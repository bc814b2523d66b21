"""A real Slurm on loopback: two virtual nodes with two CPUs and two pretended GPUs each."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers import Absent, free_port, running

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo", "srun")
NODES = ("n1", "n2")
# No accounting and no munge. Nodes and controller trust each other, on loopback alone. A killed
# node is noticed in seconds. Jobs of `urgent` push those of `main` out and back into the queue, and
# those of `spare` too, which are given a minute to go. As on many clusters, a job is not put back
# unless it says that it may be.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
ReturnToService=1
SlurmdTimeout=10
KillWait=5
JobRequeue=0
MinJobAge=3600
EnforcePartLimits=ALL
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=DEFAULT CPUs=2 RealMemory=2000 Gres=gpu:2
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={first}
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={second}
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=1:00:00 PriorityTier=1
PartitionName=spare Nodes=n[1-2] MaxTime=1:00:00 PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=n[1-2] MaxTime=1:00:00 PriorityTier=10 PreemptMode=OFF
"""


@dataclass(frozen=True)
class Slurm:
    """A running cluster; its programs find it by SLURM_CONF."""

    folder: Path

    @property
    def configuration(self) -> Path:
        return self.folder / "slurm.conf"

    def ask(self, *words: str, check: bool = True) -> str:
        """What one of Slurm's programs prints."""
        environment = {**os.environ, "SLURM_CONF": str(self.configuration)}
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0 or not check, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def idle(self) -> bool:
        """Whether all nodes wait for work."""
        said = self.ask("sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D", check=False)
        return said == str(len(NODES))

    def states(self, job: str) -> dict[str, str]:
        """State by job number, of an array all its tasks, the ended ones too."""
        lines = self.ask("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def until(self, job: str, state: str, *, timeout_s: float = 60) -> None:
        """Wait until every task of `job` is in `state`."""
        deadline = time.monotonic() + timeout_s
        while set(self.states(job).values()) != {state}:
            assert time.monotonic() < deadline, f"{job} is {self.states(job)}, not {state}"
            time.sleep(0.1)

    def hurry(self, job: str, *, timeout_s: float = 60) -> None:
        """Start a job again that is put back into the queue, where it would wait two minutes."""
        deadline = time.monotonic() + timeout_s
        while not re.search(r"JobState=(RUNNING|COMPLETED) .*Restarts=[1-9]", self._about(job)):
            assert time.monotonic() < deadline, self._about(job)
            if "JobState=PENDING" in self._about(job):
                time.sleep(2)  # a node would take what starts in the second of its end for the end
                self.ask("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)
            time.sleep(0.2)

    def _about(self, job: str) -> str:
        return self.ask("scontrol", "show", "job", "-o", job)

    def cancel_all(self) -> None:
        """Empty the queue, so that one test leaves no job to the next."""
        self.ask("scancel", "--state=PENDING", f"--user={os.getuid()}")
        self.ask("scancel", f"--user={os.getuid()}")


@contextmanager
def running_slurm(folder: Path) -> Iterator[Slurm]:
    """Slurm with its state in `folder`."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    if missing:
        raise Absent(f"Slurm is not installed (slurm-wlm: {', '.join(missing)})")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state").mkdir()
    ports = {name: free_port() for name in ("controller", "first", "second")}
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    slurm = Slurm(folder)
    slurm.configuration.write_text(CONFIGURATION.format(folder=folder, user=user, **ports))
    # any two character devices will do for GPUs that nobody computes on
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    environment = {**os.environ, "SLURM_CONF": str(slurm.configuration), "PATH": _path()}
    with ExitStack() as stack:
        start = ["slurmctld", "-D"]
        log = folder / "slurmctld.log"
        controller = stack.enter_context(running(start, log, env=environment))
        for node in NODES:
            start = ["slurmd", "-D", "-N", node]
            stack.enter_context(running(start, folder / f"{node}.log", env=environment))
        deadline = time.monotonic() + 60
        while not slurm.idle():
            assert controller.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)
        try:
            yield slurm
        finally:
            slurm.cancel_all()


def _path() -> str:
    """Debian keeps the daemons where only root looks."""
    return f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
