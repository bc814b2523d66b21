"""Which process goes on with a run: a run has one writer, on whatever machine."""

import hashlib
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from mammo.errors import TrackingError

HEARTBEAT, OWNER = "mammo.heartbeat", "mammo.owner"
BEAT_S = 60.0  # between two heartbeats
STALE_S = 3 * BEAT_S  # a heart that was silent for so long has stopped


def _machine(name: str, processes: Path) -> str:
    """Where a process's number means this process: a machine, or a container on it.

    The machine's name may name people or a hospital: its digest will do to tell two apart.
    """
    try:
        counted_in = str(processes.readlink())
    except OSError:  # not Linux
        counted_in = ""
    return hashlib.sha256(f"{name}{counted_in}".encode()).hexdigest()[:12]


_MACHINE = _machine(socket.gethostname(), Path("/proc/self/ns/pid"))
_TOKEN = secrets.token_hex(4)


class Taken(TrackingError):
    """Another living process writes the run."""


def owner() -> str:
    """This process, as a run's tag."""
    return f"{_MACHINE}:{os.getpid()}:{_TOKEN}"


def mark() -> dict[str, str]:
    """Tags of a run that this process goes on with."""
    return {OWNER: owner(), HEARTBEAT: str(int(time.time()))}


def refuse_second(run: Any) -> None:
    """Taken where another living process goes on with `run`, an MLflow run."""
    other = run.data.tags.get(OWNER, "")
    if run.info.status != "RUNNING" or other in ("", owner()):
        return
    silent = silent_s(run)
    if silent > STALE_S or _is_dead(other):
        return
    place = "on this machine" if other.startswith(_MACHINE) else "on another machine"
    raise Taken(
        f"run {run.info.run_id} is being written by another process {place} (its heart beat "
        f"{silent:.0f} s ago); stop that one, or wait {STALE_S:.0f} s after its end"
    )


def silent_s(run: Any) -> float:
    """Seconds since the last heartbeat of a run, since its start where it had none."""
    try:
        last = float(run.data.tags[HEARTBEAT])
    except (KeyError, ValueError):
        last = (run.info.start_time or 0) / 1000
    return max(0.0, time.time() - last)


def _is_dead(other: str) -> bool:
    """Whether `other` was a process of this machine that is no more."""
    machine, _, rest = other.partition(":")
    if machine != _MACHINE:
        return False
    try:
        os.kill(int(rest.partition(":")[0]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return False
