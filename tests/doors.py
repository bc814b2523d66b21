"""The two doors as a user opens them: `mlflow run . -e ENTRY` and `mammo ENTRY`, as processes."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mammo import cli

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 600


@dataclass(frozen=True)
class Outcome:
    """How a command ended; `line` is the JSON object of its last line of stdout."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> dict[str, Any]:
        assert self.code == 0, self.err[-3000:]
        printed: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return printed

    @property
    def run_id(self) -> str:
        return str(self.line["run_id"])

    @property
    def uri(self) -> str:
        """Address of the main output."""
        return str(next(iter(self.line["outputs"].values())))

    @property
    def metrics(self) -> dict[str, float]:
        return dict(self.line["metrics"])


def mlflow_run(entry: str, *, manager: str = "local", **settings: Any) -> Outcome:
    """`mlflow run . -e ENTRY -P name=value …`; `__` in a name stands for a dot."""
    return _called(mlflow_command(entry, manager=manager, **settings))


def mlflow_command(entry: str, *, manager: str = "local", **settings: Any) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "-e", entry]
    command += [f"--env-manager={manager}"]
    for name, value in _texts(settings).items():
        command += ["-P", f"{name}={value}"]
    return command


def mammo(entry: str, *arguments: str, **settings: Any) -> Outcome:
    """`mammo ENTRY --name value …`; `__` in a name stands for a dot."""
    return _called(mammo_command(entry, *arguments, **settings))


def here(entry: str, *arguments: str, **settings: Any) -> Outcome:
    """`mammo ENTRY …` in this process: nothing is imported anew, and all else is the same."""
    out, err = io.StringIO(), io.StringIO()
    with as_a_process(), redirect_stdout(out), redirect_stderr(err):
        code = cli.main(mammo_command(entry, *arguments, **settings)[3:])
    return Outcome(code, out.getvalue(), err.getvalue())


@contextmanager
def as_a_process() -> Iterator[None]:
    """Log to stderr as a process of its own does; give signals and loggers back afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root = logging.getLogger()
    held, level = root.handlers, root.level
    root.handlers = []
    try:
        yield
    finally:
        root.handlers = held
        root.setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def mammo_command(entry: str, *arguments: str, **settings: Any) -> list[str]:
    command = [sys.executable, "-m", "mammo", entry, *arguments]
    for name, value in _texts(settings).items():
        command += [f"--{name}", value]
    return command


def environment() -> dict[str, str]:
    """What a command of ours is started with: this Python's programs and this source tree."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


def _texts(settings: Mapping[str, Any]) -> dict[str, str]:
    return {
        name.replace("__", "."): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in settings.items()
    }


def _called(command: list[str]) -> Outcome:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment(), check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
