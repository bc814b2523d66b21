"""The order by which processes elsewhere do a step of this run: what to do, and on what."""

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mammo.errors import ConfigError
from mammo.launch.command import Command, End, Launched, Launcher, commands_of
from mammo.run import Reference, Run, Stopped

LOG = logging.getLogger("mammo")
GATHER = "gather"  # the last command of an order: it makes one result of all parts


@dataclass(frozen=True)
class Order:
    """A step to do in `parts` that do not depend on each other, and a gathering after them."""

    step: str
    settings: Mapping[str, Any]
    parts: int
    run_id: str
    folder: Path  # of the run
    work: Path
    inputs: Mapping[str, list[Reference]]

    @classmethod
    def of(cls, tracked: Run, step: str, settings: Mapping[str, Any], parts: int) -> "Order":
        return cls(
            step, dict(settings), parts, tracked.id, tracked.folder, tracked.work, tracked.inputs
        )

    @classmethod
    def read(cls, folder: Path) -> "Order":
        """The order in the folder of a run."""
        path = _place(folder) / "order.json"
        try:
            said = json.loads(path.read_text())
        except (OSError, ValueError):
            raise ConfigError(
                f"{path} is no order of a launcher; give the folder of a run"
            ) from None
        inputs = {
            name: [Reference(**{**each, "path": Path(each["path"])}) for each in references]
            for name, references in said.pop("inputs").items()
        }
        said |= {name: Path(said[name]) for name in ("folder", "work")}
        return cls(**said, inputs=inputs)

    def write(self) -> None:
        """Leave the order in the folder of its run."""
        place = _place(self.folder)
        place.mkdir(parents=True, exist_ok=True)
        partial = place / "order.partial"
        partial.write_text(json.dumps(asdict(self), default=str) + "\n")
        partial.replace(place / "order.json")

    def commands(self) -> tuple[list[Command], Command]:
        """The command of each part, and that of the gathering."""
        words = [sys.executable, "-m", "mammo", "part", str(self.folder)]
        parts = commands_of([[*words, str(n)] for n in range(self.parts)], _place(self.folder))
        return parts, Command([*words, GATHER], _place(self.folder) / f"{GATHER}.log")

    def do_parts(self, launcher: Launcher) -> None:
        """Have the parts done, and wait; an error where one was not."""
        self.write()
        launcher.start(self.commands()[0], name=self.step).wait()
        self.refuse_undone()

    def do_all(self, launcher: Launcher, *, at_once: int = 0) -> None:
        """Have the parts and the gathering done, and wait; goes on with jobs on their way."""
        parts, gather = self.commands()
        first, last = self._held(launcher)
        if last is None:
            self.write()
            if parts:
                first = launcher.start(parts, name=self.step, at_once=at_once)
            last = _after(first, launcher, gather, f"{self.step}-gather")
            held = {"parts": first.jobs if first else [], "gather": last.jobs}
            (_place(self.folder) / "jobs.json").write_text(json.dumps(held))
        try:
            (end,) = last.wait()
        except BaseException:
            if first is not None:
                first.cancel()
            raise
        if not end.done:
            raise _as_raised(end, gather.log, "the gathering job")

    def refuse_undone(self) -> None:
        """Raise what went wrong in a part: the user's mistake, a bug, or an end from outside."""
        for number, command in enumerate(self.commands()[0]):
            end = command.end() or End(None, command.told())
            if not end.done:
                raise _as_raised(end, command.log, f"part {number} of {self.parts}")

    def _held(self, launcher: Launcher) -> tuple[Launched | None, Launched | None]:
        """The parts and the gathering that an earlier process has started and that still go on."""
        parts, gather = self.commands()
        try:
            held = json.loads((_place(self.folder) / "jobs.json").read_text())
        except (FileNotFoundError, ValueError):
            return None, None
        last = launcher.again([gather], held["gather"])
        if last is None:
            return None, None
        LOG.info("%s: its jobs are on their way; waiting for them", self.step)
        return launcher.again(parts, held["parts"]), last


def _after(first: Launched | None, launcher: Launcher, gather: Command, name: str) -> Launched:
    try:
        return launcher.start([gather], name=name, after=first)
    except BaseException:
        if first is not None:
            first.cancel()
        raise


def _as_raised(end: End, log: Path, who: str) -> BaseException:
    """How the end of a command elsewhere is told here."""
    match end.code:
        case 2:
            return ConfigError(end.told.removeprefix("part: "))
        case 130 | 143:
            return Stopped(end.code - 128)
        case 1:
            return RuntimeError(f"{who} failed; its traceback is in {log}")
    how = "without a word" if end.code is None else f"exit code {end.code}"
    return ConfigError(
        f"{who} was ended from outside ({how}): out of time, memory or luck, or cancelled; see "
        f"{log}; the same command goes on where it stopped"
    )


def _place(folder: Path) -> Path:
    return folder / "launch"
