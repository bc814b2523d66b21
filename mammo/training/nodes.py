"""A team on several machines of a Slurm job: srun starts a process on each, and that the rest.

`python -m mammo.training.nodes` is that process.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import TextIO

from mammo import errors
from mammo.errors import ConfigError, MammoError
from mammo.training.processes import Team, abort_with_any, team_of, together

START_S = 300.0  # that the processes on the other machines may take to be there
_LAST_WORD_S = 10.0
_END_S = 10.0
# Slurm tells all of a job that its time is over: the first process alone shall hear it
_DEAF = "trap '' INT TERM USR2; exec \"$@\""

Work = Callable[[Team], None]


def check_nodes(nodes: int) -> None:
    """ConfigError where this process has not so many machines."""
    held = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    if nodes > held:
        raise ConfigError(
            f"nodes {nodes}: the machines of this Slurm job, or without one this machine alone, "
            f"are {held}; use launcher=slurm, a job of {nodes} nodes, or nodes=1"
        )
    if nodes > 1 and "SLURMD_NODENAME" not in os.environ:
        raise ConfigError(
            f"nodes {nodes}: this process runs outside of the machines of its Slurm job; begin it "
            "on one of them (srun --overlap --nodes=1 --ntasks=1 mammo ...), or use launcher=slurm"
        )


@contextmanager
def across(nodes: int, devices: int, work: Work) -> Iterator[Team]:
    """Run `work(team)` in `devices` processes on each of `nodes` machines, of which one is here.

    The block is the first process of all. What one of them raises is raised here, and they end
    with this process, as in `together`.
    """
    if nodes == 1:
        with together(devices, work) as team:
            yield team
        return
    check_nodes(nodes)
    first, step, over = team_of(devices, nodes), _Step(nodes - 1), threading.Event()
    try:
        step.give(work, first)
        threading.Thread(target=abort_with_any, args=([step], over), daemon=True).start()
        with together(devices, work, first=replace(first, lost=step.has_failed)) as team:
            yield team
        step.join()
        step.raise_what_failed()
    except MammoError:
        raise
    except Exception as error:
        # of processes that wait for each other, the one that failed first has the reason
        wait([step.sentinel], timeout=_LAST_WORD_S)
        try:
            step.raise_what_failed()
        except RuntimeError as other:  # who was first, nobody knows
            error.add_note("\n".join([str(other), *other.__notes__]))
        raise
    finally:
        over.set()
        step.end()


class _Step:
    """A process on each of the other machines of this job, started by srun.

    They end when their stdin does: with this process, however it ends. Each says in lines of
    stdout that it is there, and what went wrong.
    """

    def __init__(self, machines: int) -> None:
        self._machines, self._there, self._silent = machines, 0, False
        self._reason: Mapping[str, str] = {}
        self._heard = threading.Condition()
        self._process = subprocess.Popen(
            _srun(machines),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_outside_of_a_step(),
        )
        self.sentinel = os.pidfd_open(self._process.pid)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def exitcode(self) -> int | None:
        return self._process.poll()

    def has_failed(self) -> bool:
        return bool(self.exitcode)

    def join(self) -> None:
        self._process.wait()
        self._listener.join()

    def give(self, work: Work, first: Team) -> None:
        """Let all begin, as soon as all are there."""
        with self._heard:
            self._heard.wait_for(lambda: self._silent or self._there == self._machines, START_S)
        if self._there < self._machines:
            self.raise_what_failed()
            raise ConfigError(
                f"nodes {self._machines + 1}: srun has started {self._there} of "
                f"{self._machines} processes on the other machines; its own words are in the log"
            )
        assert self._process.stdin is not None
        with Connection(os.dup(self._process.stdin.fileno()), readable=False) as pipe:
            pipe.send((work, first))

    def raise_what_failed(self) -> None:
        """Raise what the first that failed has said, or that it could say nothing."""
        if self._process.poll() in (None, 0):
            return
        self._listener.join()
        if not self._reason:
            raise ConfigError(
                f"nodes {self._machines + 1}: the system ended a process on another machine (srun: "
                f"exit code {self._process.returncode}), most likely for lack of memory; use a "
                "smaller batch_size, accumulate, or fewer devices"
            )
        kind = getattr(errors, self._reason["kind"], RuntimeError)
        error: Exception = kind(self._reason["text"])
        error.add_note(self._reason["where"])
        raise error

    def end(self) -> None:
        """End them all."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        for number in (0, signal.SIGTERM, signal.SIGKILL):
            self._process.send_signal(number)
            if wait([self.sentinel], timeout=_END_S):
                break
        self.join()
        self._process.stdout.close()
        os.close(self.sentinel)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = _word(line)
            if said is None:
                continue
            with self._heard:
                self._there += not said
                self._reason = self._reason or said
                self._heard.notify()
        with self._heard:
            self._silent = True
            self._heard.notify()


def _srun(machines: int) -> list[str]:
    """The command that starts a process on each machine of this job but this one."""
    options = {
        "nodes": machines,
        "ntasks": machines,
        "ntasks-per-node": 1,
        "exclude": os.environ["SLURMD_NODENAME"],
        "cpus-per-task": os.environ.get("SLURM_CPUS_PER_TASK", 1),
        "kill-on-bad-exit": 1,
        "mpi": "none",
    }
    asked = [f"--{name}={value}" for name, value in options.items()]
    return ["srun", *asked, "sh", "-c", _DEAF, "sh", sys.executable, "-m", "mammo.training.nodes"]


def _outside_of_a_step() -> dict[str, str]:
    """The environment, without what srun would take for its own options."""
    kept = ("SLURM_CONF", "SLURM_JOB_ID")
    return {
        name: value
        for name, value in os.environ.items()
        if name in kept or not name.startswith(("SLURM_", "SRUN_"))
    }


def lead() -> None:
    """Be the first process of one of the other machines, and end with the first of all."""
    logging.getLogger("mammo").setLevel(logging.ERROR)  # that one says it all
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no word of ours
    number = int(os.environ["SLURM_PROCID"]) + 1
    given = Connection(0, writable=False)
    _say(told, {})
    try:
        work, first = given.recv()
        threading.Thread(target=_end_with, args=(given,), daemon=True).start()
        address = os.environ["SLURM_LAUNCH_NODE_IPADDR"]  # of who has called srun
        mine = replace(first, rank=number * first.here, address=address)
        with together(first.here, work, first=mine) as team:
            work(team)
    except EOFError:  # the first of all is gone already
        return
    except Exception as error:  # noqa: BLE001  # raised again by the first process of all
        known = isinstance(error, MammoError)
        name = type(error).__name__
        where = f"on machine {number + 1}:\n{traceback.format_exc()}"
        text = str(error) if known else f"{name}: {error}"
        _say(told, {"kind": name, "text": text, "where": where})
        os._exit(1)  # no clean-up that waits for the others


def _say(told: TextIO, word: Mapping[str, str]) -> None:
    told.write(json.dumps(word) + "\n")
    told.flush()


def _word(line: bytes) -> Mapping[str, str] | None:
    """A word that `_say` wrote; None for what a prolog of the site has printed."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _end_with(given: Connection) -> None:
    """A process that has ended tells nobody, but what it wrote into is closed."""
    given.poll(None)
    os._exit(1)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    lead()
