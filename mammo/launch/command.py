"""A command line that is run elsewhere, and what is left of it to read: its log and its end."""

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

_POLL_S = 0.1
_WARNING = signal.SIGUSR2  # by which Slurm tells a job that its time is over, and submitit hears it


@dataclass(frozen=True)
class End:
    """How a command ended."""

    code: int | None  # exit code, minus the signal that ended it, or None when nobody knows
    told: str  # the last line that it wrote

    @property
    def done(self) -> bool:
        return self.code == 0


@dataclass
class Command:
    """`words` to run as a process, whose output and end go to `log` and `<log>.end`.

    submitit calls it on the machine of a job, and `checkpoint` before the job's time is over: the
    process saves its state, and the job is put back into the queue to run the same words.
    """

    words: list[str]
    log: Path
    nodes: int = 1  # machines of its job; it runs on the first
    patience_s: float = 60.0  # that it has to save its state

    def __post_init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __str__(self) -> str:
        return shlex.join(self.words)

    def __call__(self) -> None:
        """Run it here and wait for its end."""
        # Slurm tells all processes of a job that its time is over; submitit alone shall hear it
        self.start({}, deaf_to=_WARNING)
        while self._runs():
            time.sleep(_POLL_S)
        if self._was_told_to_stop() and _job_goes_on():
            signal.raise_signal(_WARNING)  # it was given time to go, and then comes again
        self.take_end()

    def start(self, environment: Mapping[str, str], *, deaf_to: int = 0) -> None:
        """Start it as a process with `environment` in addition, which ignores one signal."""
        self.forget()
        kept = signal.signal(deaf_to, signal.SIG_IGN) if deaf_to else None  # it is inherited
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )
        if deaf_to:
            signal.signal(deaf_to, kept)

    def forget(self) -> None:
        """Remove the end of an earlier start."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._end_file.unlink(missing_ok=True)

    def take_end(self) -> bool:
        """Whether the process has ended, and its end is written down."""
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            return False
        self.note(code)
        return True

    def note(self, code: int) -> None:
        """Write down how it ended."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        partial = self._end_file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"code": code}))
        partial.replace(self._end_file)

    def stop(self) -> None:
        """End the process, which may save its state first."""
        if self._process is None:
            return
        deadline = time.monotonic() + self.patience_s
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.tell(number)
            while self._runs() and (time.monotonic() < deadline or number == signal.SIGKILL):
                time.sleep(_POLL_S)
        self._process.poll()

    def tell(self, number: int = signal.SIGTERM) -> None:
        """Send the process a signal."""
        if self._runs():
            os.kill(self._pid, number)

    @property
    def _pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _runs(self) -> bool:
        """Whether the process lives. A signal handler may ask, in the middle of `take_end`."""
        if self._process is None:
            return False
        try:
            return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:  # it has ended, and that is taken in
            return False

    def _was_told_to_stop(self) -> bool:
        assert self._process is not None
        return self._process.poll() in (128 + signal.SIGTERM, -signal.SIGTERM)

    def checkpoint(self) -> Any:
        """What submitit puts into the queue when it has to give the machine back."""
        from importlib import import_module

        self.stop()
        return import_module("submitit.helpers").DelayedSubmission(self)

    def end(self) -> End | None:
        """How it ended, as any process can read it; None while nobody has said so."""
        try:
            code = json.loads(self._end_file.read_text())["code"]
        except FileNotFoundError:
            return None
        return End(code, self.told())

    def told(self) -> str:
        """The last line of its output."""
        try:
            lines = self.log.read_text(errors="replace").split("\n")
        except FileNotFoundError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    @property
    def _end_file(self) -> Path:
        return self.log.with_suffix(".end")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_process": None}


class Launched(Protocol):
    """Commands on their way."""

    jobs: list[str]  # of the cluster; empty for processes

    def wait(self, meanwhile: Callable[[], None] = ...) -> list[End]:
        """The end of each, in the order of the commands; `meanwhile` is called now and then."""

    def cancel(self) -> None:
        """End them, and those that they wait for."""


class Launcher(Protocol):
    """Starts commands somewhere."""

    def start(
        self,
        commands: Sequence[Command],
        *,
        name: str,
        at_once: int = 0,
        after: Launched | None = None,
    ) -> Launched:
        """Start all `commands`, at most `at_once` at a time (0: as many as there is room for).

        Those in `after` end first, in whatever way.
        """

    def again(
        self, commands: Sequence[Command], jobs: Sequence[str], *, before: Sequence[str]
    ) -> Launched | None:
        """`commands` that an earlier process started as `jobs`; None where no job is left.

        Of the jobs `before`, which they wait for, none is left then either.
        """


def _job_goes_on() -> bool:
    """Whether the Slurm job of this process is to run on: not cancelled, nor its time over.

    Who pushes a job out may give it some time, in which it is told to stop and runs on.
    """
    words = ["squeue", "-h", "-j", os.environ.get("SLURM_JOB_ID", ""), "-o", "%T"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() == "RUNNING"


def commands_of(words: Sequence[Sequence[str]], folder: Path, *, nodes: int = 1) -> list[Command]:
    """A command for each of `words`, numbered, with its log in `folder`."""
    return [Command(list(each), folder / f"{n:04d}.log", nodes) for n, each in enumerate(words)]
