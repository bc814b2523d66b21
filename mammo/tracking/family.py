"""The children of a run: how they ended and what they said, counted on their parent."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mammo.run import Pruned, Run

KEPT = "family.jsonl"  # in the parent's folder, so that a parent that is gone on with knows them
STATES = ("FINISHED", "FAILED", "KILLED")


@dataclass
class Child:
    """A child run as its parent knows it; `metrics` are its last values."""

    name: str
    step: str
    run_id: str = ""  # empty where it failed before it had one
    status: str = "RUNNING"
    metrics: dict[str, float] = field(default_factory=dict)


@contextmanager
def counted(parent: Run, name: str, step: str) -> Iterator[Child]:
    """A child of `parent`, filled in by the block; its end is kept and counted on the parent.

    A stop of the whole process is no end: the child is gone on with, or computed again.
    """
    child = Child(name, step)
    try:
        yield child
    except Exception as error:
        _end(parent, child, "KILLED" if isinstance(error, Pruned) else "FAILED")
        raise
    _end(parent, child, "FINISHED")


def children(folder: Path) -> list[Child]:
    """The children that ended, in the order of their first ends; a later end takes its place."""
    path = folder / KEPT
    if not path.is_file():
        return []
    found: dict[str, Child] = {}
    for line in path.read_text().splitlines():
        with suppress(ValueError, TypeError):  # a kill or a full disk cut it off
            child = Child(**json.loads(line))
            found[child.name] = child
    return list(found.values())


def recount(parent: Run) -> None:
    """Count on `parent` the children that have ended, in other processes too."""
    family = children(parent.folder)
    if family:
        parent.metrics(counts(family), step=len(family))


def counts(family: list[Child]) -> dict[str, float]:
    """children/finished, children/failed and children/killed."""
    states = Counter(each.status for each in family)
    return {f"children/{state.lower()}": float(states[state]) for state in STATES}


def alike(family: Sequence[Child]) -> list[Child]:
    """The finished children of the step that most of them are of: those that can be compared."""
    done = [each for each in family if each.status == "FINISHED" and each.run_id]
    steps = Counter(each.step for each in done).most_common(1)
    return [each for each in done if each.step == steps[0][0]]


def common(family: list[Child]) -> Mapping[str, list[float]]:
    """Values, child by child, of each metric that all finished children of one step have."""
    done = [each for each in family if each.status == "FINISHED"]
    if len({each.step for each in done}) != 1:
        return {}
    names = [name for name in done[0].metrics if all(name in each.metrics for each in done)]
    return {name: [each.metrics[name] for each in done] for name in names}


def _end(parent: Run, child: Child, status: str) -> None:
    child.status = status
    with (parent.folder / KEPT).open("ab+") as file:
        torn = file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
        file.write(b"\n" * bool(torn) + json.dumps(asdict(child)).encode() + b"\n")
    recount(parent)
