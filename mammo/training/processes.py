"""Processes on one machine that train one model together, and end when their parent does."""

import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from mammo.errors import ConfigError, MammoError

# what Lightning and torch.distributed write into the environment
_VARIABLES = (
    *("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"),
    *("OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME"),
)


@dataclass(frozen=True)
class Team:
    """Processes that share each batch: this one is `rank` of `size`; they meet at `port`."""

    rank: int = 0
    size: int = 1
    port: int = 0


ALONE = Team()


def strategy_of(team: Team, device: torch.device, *, unused_parameters: bool) -> dict[str, Any]:
    """Arguments of a Trainer on `device`, in a process of `team`.

    `unused_parameters`: whether a gradient may leave some parameters out.
    """
    if team.size == 1:
        number = 1 if device.type == "cpu" else [device.index or 0]
        return {"accelerator": device.type, "devices": number}
    strategy = DDPStrategy(
        cluster_environment=_OneMachine(team), find_unused_parameters=unused_parameters
    )
    return {"accelerator": device.type, "devices": team.size, "strategy": strategy}


@contextmanager
def together(size: int, work: Callable[[Team], None]) -> Iterator[Team]:
    """Run `work(team)` in `size` - 1 processes beside the block, which is rank 0 of the team.

    What one of them raises is raised here. They ignore signals, which reach all of a terminal:
    the parent decides, and however it ends they end with it. `work` is pickled.
    """
    if size == 1:
        yield ALONE
        return
    port = _free_port()
    context = get_context("spawn")
    said, theirs = context.Pipe(duplex=False)  # one pipe: the first word in it is the cause
    lock, over = context.Lock(), threading.Event()
    members: list[BaseProcess] = []
    for rank in range(1, size):
        task = (work, Team(rank, size, port), theirs, lock)
        members.append(context.Process(target=_member, args=task, daemon=True))
    with _environment_kept():
        try:
            for member in members:
                member.start()
            theirs.close()
            watch = threading.Thread(target=_abort_with_any, args=(members, over), daemon=True)
            watch.start()
            yield Team(0, size, port)
            for member in members:
                member.join()
            _raise_what_failed(said, members)
        except MammoError:
            raise
        except Exception:
            # of processes that wait for each other, the one that failed first has the reason
            wait([said, *(member.sentinel for member in members)], timeout=10)
            _raise_what_failed(said, members)
            raise
        finally:
            over.set()
            for member in members:
                if member.pid is not None:
                    member.kill()
                    member.join()
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def _member(work: Callable[[Team], None], team: Team, pipe: Connection, lock: Any) -> None:
    """Do `work` as one of the team, and tell the parent what went wrong."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    logging.getLogger("mammo").setLevel(logging.ERROR)  # the parent says it all
    try:
        work(team)
    except Exception as error:  # noqa: BLE001  # raised again by the parent
        error.add_note(f"in process {team.rank} of {team.size}:\n{traceback.format_exc()}")
        with lock:
            pipe.send(error)
        os._exit(1)  # no clean-up that waits for the others


def end_with_parent() -> None:
    """A killed parent tells nobody; without this a process would write on beside its successor."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _raise_what_failed(said: Connection, members: list[BaseProcess]) -> None:
    """Raise what a member has said went wrong, or that it was ended from outside."""
    patience = 0
    if said.poll():
        try:
            error = said.recv()
        except EOFError:  # all end without a word; the pipe is closed before its process is gone
            patience = 10
        else:
            raise error
    ended = set(wait([member.sentinel for member in members], timeout=patience))
    for member in members:
        if member.sentinel in ended:
            member.join()  # or its exit code might not be known yet
    codes = [member.exitcode for member in members if member.exitcode]
    if codes:
        raise ConfigError(
            f"devices {len(members) + 1}: the system ended a process (exit code {codes[0]}), most "
            "likely for lack of memory; use a smaller batch_size, accumulate, or fewer devices"
        )


def _abort_with_any(members: list[BaseProcess], over: threading.Event) -> None:
    """NCCL waits for a process that has died; gloo notices by itself."""
    left = list(members)
    while left:
        ended = set(wait([member.sentinel for member in left]))
        for member in [each for each in left if each.sentinel in ended]:
            left.remove(member)
            member.join()
            waiting = torch.distributed.is_initialized() and not over.is_set()
            if member.exitcode and waiting and torch.distributed.get_backend() == "nccl":
                torch.distributed.distributed_c10d._abort_process_group()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Put back what the libraries set for one team; its processes meet on this machine alone."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    threads = torch.get_num_threads()
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class _OneMachine(ClusterEnvironment):
    """Tells Lightning who this process is; it starts none."""

    def __init__(self, team: Team) -> None:
        super().__init__()
        self._team = team

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return self._team.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._team.size

    def set_world_size(self, size: int) -> None:
        """It does not change."""

    def global_rank(self) -> int:
        return self._team.rank

    def set_global_rank(self, rank: int) -> None:
        """It does not change."""

    def local_rank(self) -> int:
        return self._team.rank

    def node_rank(self) -> int:
        return 0
