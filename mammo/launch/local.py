"""Runs commands as processes of this machine, a GPU and a share of the cores for each."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mammo.launch.command import Command, End, Launched

LAUNCHED_BY = "MAMMO_LAUNCHED_BY"  # variable with the number of the process that starts others
_POLL_S = 0.1
_MEANWHILE_S = 5.0


@dataclass(frozen=True)
class Local:
    """The launcher of one machine."""

    deals_gpus: bool = True  # a GPU to each; else each may use all

    def start(
        self,
        commands: Sequence[Command],
        *,
        name: str,
        at_once: int = 0,
        after: Launched | None = None,
    ) -> "LocalLaunched":
        if after is not None:
            after.wait()
        slots = min(at_once or len(commands), len(commands))
        launched = LocalLaunched(list(commands), slots, _gpus() if self.deals_gpus else [])
        launched.advance()
        return launched

    def again(
        self, commands: Sequence[Command], jobs: Sequence[str], *, before: Sequence[str]
    ) -> None:
        """Processes end with the one that started them."""


@dataclass
class LocalLaunched:
    """Processes in `at_once` slots; a slot keeps its GPU."""

    commands: list[Command]
    at_once: int
    gpus: list[str]  # to deal out
    jobs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._left = list(self.commands)
        self._running: dict[int, Command] = {}  # by slot

    def advance(self) -> None:
        """Take in the processes that have ended, and start others in their slots."""
        self._running = {n: each for n, each in self._running.items() if not each.take_end()}
        for slot in range(self.at_once):
            if self._left and slot not in self._running:
                command = self._left.pop(0)
                command.start(_environment(slot, self.at_once, self.gpus))
                self._running[slot] = command

    def wait(self, meanwhile: Callable[[], None] = lambda: None) -> list[End]:
        """The end of each command; when this process is told to stop, they stop too."""
        asked_at = time.monotonic()
        try:
            while self._left or self._running:
                time.sleep(_POLL_S)
                self.advance()
                if time.monotonic() - asked_at > _MEANWHILE_S:
                    meanwhile()
                    asked_at = time.monotonic()
        except BaseException:
            self.cancel()
            raise
        return [command.end() or End(None, command.told()) for command in self.commands]

    def cancel(self) -> None:
        """Have them save their state and end."""
        self._left = []
        for command in self._running.values():
            command.tell()  # all, before one is waited for
        for command in self._running.values():
            command.stop()


def _environment(slot: int, slots: int, gpus: Sequence[str]) -> dict[str, str]:
    """The GPU of a slot, dealt out in turn, its share of the cores, and with whom it ends."""
    threads = max(1, _cores() // slots)
    given = int(os.environ.get("OMP_NUM_THREADS") or threads)
    environment = {"OMP_NUM_THREADS": str(min(given, threads)), LAUNCHED_BY: str(os.getpid())}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return environment


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [each for each in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if each]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, check=False)
    return [str(number) for number in range(len(listed.stdout.splitlines()))]
