"""The way to the stores: programs of this machine, or those in the images of Compose."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keeping.folder import Damaged
from keeping.frames import Broken

KEEP = Path(__file__).resolve().parents[1] / "keep.py"
# Run in the container: the password stays there, and is no argument.
AS_OWNER = (
    'PGHOST=127.0.0.1 PGUSER="${POSTGRES_USER:-postgres}" PGPASSWORD="$POSTGRES_PASSWORD" exec "$@"'
)
IN_DATABASE = ("docker", "compose", "exec", "-T", "postgres", "sh", "-c", AS_OWNER, "sh")
IN_IMAGE = ("docker", "compose", "run", "--rm", "-T", "--no-deps", "--entrypoint", "python")
SERVICE = "prepare"  # whose environment has the keys of all stores
GRACE_S = 60  # to undo what was begun


class Refused(Exception):
    """What was asked cannot be done; one line that says why."""


@dataclass(frozen=True)
class Stack:
    """Where the stores are reached: through Compose, or with the environment of start.py."""

    compose: bool = False

    def database(self, program: str, *words: str) -> list[str]:
        """The call of one of PostgreSQL's programs beside the database, as its superuser."""
        if self.compose:
            return [*IN_DATABASE, program, *words]
        found = shutil.which(program, path=os.environ.get("POSTGRES_PROGRAMS") or None)
        if not found:
            raise Refused(f"{program} is not on PATH; name its folder in POSTGRES_PROGRAMS")
        return [found, *words]

    def store(self, *words: str) -> list[str]:
        """The call of keep.py beside the stores, with their keys."""
        if self.compose:
            return [*IN_IMAGE, SERVICE, "/server/keep.py", *words]
        return [sys.executable, str(KEEP), *words]

    def facts(self) -> dict[str, Any]:
        """What the stores are and hold: see stores.facts."""
        with self.process(self.store("store", "facts"), stdout=subprocess.PIPE) as process:
            text = process.stdout.read()
        said: dict[str, Any] = json.loads(text)
        return said

    @contextmanager
    def process(self, command: list[str], **streams: Any) -> Iterator[Any]:
        """Run `command` beside the block; Refused with its last line on stderr when it fails."""
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(command, stderr=said, env=self._environment(), **streams)
            cut: Exception | None = None  # what the end of the other side looks like from here
            try:
                yield process
            except (BrokenPipeError, Broken, Damaged) as error:
                cut = error
            finally:
                _end(process)
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            if process.returncode:
                name = Path(command[0]).name
                raise Refused(lines[-1] if lines else f"{name} ended with {process.returncode}")
            if cut:
                raise cut

    def _environment(self) -> dict[str, str]:
        """The environment with PostgreSQL's own names of what the stack's programs are told."""
        if self.compose:
            return dict(os.environ)
        user, password = superuser()
        told = {"PGUSER": user, "PGPASSWORD": password}
        told |= {f"PG{key}": os.environ.get(f"POSTGRES_{key}", "") for key in ("HOST", "PORT")}
        return {**os.environ, **{key: value for key, value in told.items() if value}}


def superuser() -> tuple[str, str]:
    """Name and password of who may see all databases; MLflow's role where that is the only one."""
    password = os.environ.get("POSTGRES_ADMIN_PASSWORD", "")
    if password:
        return os.environ.get("POSTGRES_ADMIN_USER", "postgres"), password
    return os.environ.get("POSTGRES_USER", ""), os.environ.get("POSTGRES_PASSWORD", "")


def _end(process: Any) -> None:
    """Close the pipes and wait: a process that sees its input cut off undoes what it began."""
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(GRACE_S if sys.exc_info()[0] else None)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
