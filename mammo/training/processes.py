"""Processes of a machine that train one model together, and end when their parent does."""

import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from mammo.errors import ConfigError, MammoError

LOOPBACK = "127.0.0.1"
_POLL_S = 0.05
# what Lightning and torch.distributed write into the environment
_VARIABLES = (
    *("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"),
    *("OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME"),
)


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Team:
    """Processes that share each batch: this one is `rank` of `size`, and `here` are on its machine.

    They meet at `port` of the first one's machine, which this one reaches at `address`, when all
    have come to its `gate`, another port.
    """

    rank: int = 0
    size: int = 1
    here: int = 1
    port: int = 0
    gate: int = 0
    address: str = LOOPBACK
    lost: Callable[[], bool] = _never  # whether another that this one has started has failed


ALONE = Team()


class Member(Protocol):
    """What tells that one of the others has ended, and how: a multiprocessing.Process does."""

    @property
    def sentinel(self) -> int: ...

    @property
    def exitcode(self) -> int | None: ...

    def join(self) -> None: ...


def strategy_of(team: Team, device: torch.device, *, unused_parameters: bool) -> dict[str, Any]:
    """Arguments of a Trainer on `device`, in a process of `team`.

    `unused_parameters`: whether a gradient may leave some parameters out.
    """
    if team.size == 1:
        number = 1 if device.type == "cpu" else [device.index or 0]
        return {"accelerator": device.type, "devices": number}
    strategy = DDPStrategy(
        cluster_environment=_Started(team), find_unused_parameters=unused_parameters
    )
    return {
        "accelerator": device.type,
        "devices": team.here,
        "num_nodes": team.size // team.here,
        "strategy": strategy,
    }


def team_of(here: int, machines: int) -> Team:
    """The first of `here` processes on each of so many machines."""
    port, gate = _free_ports(2)
    return Team(size=here * machines, here=here, port=port, gate=gate)


@contextmanager
def all_here(team: Team) -> Iterator[None]:
    """Wait until all of `team` are here.

    The first meeting of torch.distributed would wait half an hour for who has failed on the way,
    and hear no signal.
    """
    if team.size == 1 or torch.distributed.is_initialized():
        yield
        return
    make: Any = vars(torch.distributed)["TCPStore"]  # which its types leave out
    store = make(team.address, team.gate, is_master=team.rank == 0, wait_for_workers=False)
    store.set(str(team.rank), "here")
    while not store.check([str(rank) for rank in range(team.size)]):
        if team.lost():
            raise RuntimeError("another process of the team has ended")
        time.sleep(_POLL_S)
    yield
    del store  # not before: the first process serves it


@contextmanager
def together(
    size: int, work: Callable[[Team], None], *, first: Team | None = None
) -> Iterator[Team]:
    """Run `work(team)` in `size` - 1 processes beside the block, which is rank 0 of the team.

    Of a team on several machines the block is `first`, and the others follow it in rank.

    What one of them raises is raised here. They ignore signals, which reach all of a terminal:
    the parent decides, and however it ends they end with it. `work` is pickled.
    """
    first = first or team_of(size, 1)
    if first.size == 1:
        yield ALONE
        return
    context = get_context("spawn")
    said, theirs = context.Pipe(duplex=False)  # one pipe: the first word in it is the cause
    lock, over = context.Lock(), threading.Event()
    members: list[BaseProcess] = []
    for place in range(1, size):
        task = (work, replace(first, rank=first.rank + place, lost=_never), theirs, lock)
        members.append(context.Process(target=_member, args=task, daemon=True))
    with _environment_kept(lone=first.size == size):
        try:
            for member in members:
                member.start()
            theirs.close()
            watch = threading.Thread(target=abort_with_any, args=(members, over), daemon=True)
            watch.start()
            yield replace(first, lost=lambda: _has_failed(members) or first.lost())
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


def abort_with_any(members: Sequence[Member], over: threading.Event) -> None:
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


def _has_failed(members: Sequence[Member]) -> bool:
    return any(member.exitcode for member in members)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind((LOOPBACK, 0))
        return [int(each.getsockname()[1]) for each in found]


@contextmanager
def _environment_kept(*, lone: bool) -> Iterator[None]:
    """Put back what the libraries set for one team, which meets on a `lone` machine or on more."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    threads = torch.get_num_threads()
    if lone and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class _Started(ClusterEnvironment):
    """Tells Lightning who this process is; it starts none."""

    def __init__(self, team: Team) -> None:
        super().__init__()
        self._team = team

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self._team.address

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
        return self._team.rank % self._team.here

    def node_rank(self) -> int:
        return self._team.rank // self._team.here
