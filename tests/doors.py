"""The two doors as a user opens them: `mlflow run . -e ENTRY` and `mammo ENTRY`, as processes."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "-e", entry]
    command += [f"--env-manager={manager}"]
    for name, value in _texts(settings).items():
        command += ["-P", f"{name}={value}"]
    return _called(command)


def mammo(entry: str, *arguments: str, **settings: Any) -> Outcome:
    """`mammo ENTRY --name value …`; `__` in a name stands for a dot."""
    command = [sys.executable, "-m", "mammo", entry, *arguments]
    for name, value in _texts(settings).items():
        command += [f"--{name}", value]
    return _called(command)


def _texts(settings: Mapping[str, Any]) -> dict[str, str]:
    return {
        name.replace("__", "."): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in settings.items()
    }


def _called(command: list[str]) -> Outcome:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
