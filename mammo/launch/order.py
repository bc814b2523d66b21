"""The order by which processes elsewhere do a step of this run: what to do, and on what."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mammo.errors import ConfigError
from mammo.launch.command import Command, End, Launched, Launcher, commands_of
from mammo.run import FailedElsewhere, Reference, Result, Run, Stopped

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
    code: str = ""  # digest of the code that is to do it

    @classmethod
    def of(
        cls, tracked: Run, step: str, settings: Mapping[str, Any], parts: int, *, code: str = ""
    ) -> "Order":
        own = (tracked.id, tracked.folder, tracked.work, tracked.inputs)
        return cls(step, dict(settings), parts, *own, code)

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
        _result(self.folder).unlink(missing_ok=True)
        self._keep("order", json.dumps(asdict(self), default=str))

    @property
    def is_over(self) -> bool:
        """Whether the gathering has left its result."""
        return _result(self.folder).exists()

    def keep(self, result: Result) -> None:
        """Leave what the gathering made to who waits for it: the tracking server may be away."""
        self._keep("result", json.dumps(asdict(result)))

    def _keep(self, name: str, text: str) -> None:
        place = _place(self.folder)
        place.mkdir(parents=True, exist_ok=True)
        # settings may hold a password, a traceback in a log the name of a patient's file
        place.chmod(0o700)
        partial = place / f"{name}.{os.getpid()}"
        partial.write_text(text + "\n")
        partial.replace(place / f"{name}.json")

    def commands(self) -> tuple[list[Command], Command]:
        """The command of each part, and that of the gathering.

        Those that train do so on as many machines as the step asks for.
        """
        words = [sys.executable, "-m", "mammo", "part", str(self.folder)]
        # what is left of a part says nothing of one among more or fewer
        place = _place(self.folder) / f"of-{self.parts}"
        nodes = int(self.settings.get("nodes", 1))
        parts = commands_of([[*words, str(n)] for n in range(self.parts)], place, nodes=nodes)
        gather = Command([*words, GATHER], place / f"{GATHER}.log", 1 if parts else nodes)
        return parts, gather

    def do_parts(self, launcher: Launcher, *, meanwhile: Callable[[], None]) -> None:
        """Have the parts done, and wait; `meanwhile` is called now and then."""
        self.write()
        launcher.start(self.commands()[0], name=self.step).wait(meanwhile)

    def start(self, launcher: Launcher, *, at_once: int = 0) -> "Going":
        """Have the parts and the gathering done."""
        parts, gather = self.commands()
        first = launcher.start(parts, name=self.step, at_once=at_once) if parts else None
        jobs = {"parts": first.jobs if first else [], "gather": list[str]()}
        self._keep("jobs", json.dumps(jobs))  # who is killed now leaves them without a gathering
        last = _after(first, launcher, gather, f"{self.step}-gather")
        self._keep("jobs", json.dumps({**jobs, "gather": last.jobs}))
        return Going(self, last)

    @classmethod
    def going(cls, folder: Path, launcher: Launcher) -> "Going | None":
        """The order of a run that an earlier process has started and that still goes on.

        None where it does not: no job of it is left then.
        """
        try:
            held = json.loads((_place(folder) / "jobs.json").read_text())
            order = cls.read(folder)
        except (FileNotFoundError, ValueError, ConfigError):
            return None
        last = launcher.again([order.commands()[1]], held["gather"], before=held["parts"])
        return Going(order, last) if last else None

    def refuse_undone(self) -> None:
        """Raise what went wrong in a part: the user's mistake, a bug, or an end from outside."""
        for number, command in enumerate(self.commands()[0]):
            end = command.end() or End(None, command.told())
            if not end.done:
                raise _as_raised(end, command.log, f"part {number} of {self.parts}")


@dataclass(frozen=True)
class Going:
    """An order on its way elsewhere; its gathering is what is waited for."""

    order: Order
    last: Launched

    def wait(self) -> Result:
        """What the gathering has made, or an error; who is told to stop cancels it all."""
        (end,) = self.last.wait()
        if not end.done:
            self.last.cancel()  # where it was cancelled alone, its parts would work for nobody
            if end.code in (130, 143):
                raise Stopped(end.code - 128)
            raise _as_raised(end, self.order.commands()[1].log, "the gathering job")
        return Result(**json.loads(_result(self.order.folder).read_text()))


def _after(first: Launched | None, launcher: Launcher, gather: Command, name: str) -> Launched:
    try:
        return launcher.start([gather], name=name, after=first)
    except BaseException:
        if first is not None:
            first.cancel()
        raise


def _as_raised(end: End, log: Path, who: str) -> BaseException:
    """How the end of a command elsewhere is told here."""
    if end.code == 2:
        return ConfigError(end.told.removeprefix("part: "))
    if end.code == 1:
        return FailedElsewhere(f"{who} failed; its traceback is in {log}")
    how = "without a word" if end.code is None else f"exit code {end.code}"
    why = "out of time, memory or luck, or cancelled"
    if end.code is None and not log.exists():
        why = f"it never began, or its machine does not see {log.parent}"
    return ConfigError(
        f"{who} was ended from outside ({how}): {why}; see {log}; the same command goes on where "
        "it stopped"
    )


def _place(folder: Path) -> Path:
    return folder / "launch"


def _result(folder: Path) -> Path:
    return _place(folder) / "result.json"
