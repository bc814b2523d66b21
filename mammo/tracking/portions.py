"""Entries of a journal as requests: neighbouring numbers and words go in one."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mammo.tracking.journal import Entry

MOST = {"metrics": 1000, "params": 100, "tags": 100}  # MLflow takes in one call


@dataclass(frozen=True)
class Item:
    """A number or a word, as one part of a batch."""

    kind: str  # of MOST
    name: str
    value: Any
    time: int = 0  # milliseconds
    step: int = 0


@dataclass
class Portion:
    """Entries that go in one request: those of one batch, or a single one of another kind."""

    items: list[Item] = field(default_factory=list)
    other: Entry | None = None
    lines: int = 0
    after: int = 0  # place in the file behind it


def portions(entries: Iterable[tuple[Entry, int]]) -> Iterator[Portion]:
    """`entries` in the order they came, neighbouring numbers and words together."""
    batch, count = Portion(), Counter[str]()
    for entry, after in entries:
        kind, values = entry["kind"], entry.get("values", {})
        fits = (
            kind in MOST
            and count[kind] + len(values) <= MOST[kind]
            and count.total() + len(values) <= 1000
        )
        if not fits and batch.lines:
            yield batch
            batch, count = Portion(), Counter[str]()
        if kind not in MOST:
            yield Portion([], entry, 1, after)
            continue
        time, step = entry.get("time", 0), entry.get("step", 0)
        batch.items += [Item(kind, name, value, time, step) for name, value in values.items()]
        count[kind] += len(values)
        batch.lines += 1
        batch.after = after
    if batch.lines:
        yield batch


def entry_of(item: Item) -> Entry:
    """The entry that tells of one item alone."""
    kept: Entry = {"kind": item.kind, "values": {item.name: item.value}}
    return kept | ({"time": item.time, "step": item.step} if item.kind == "metrics" else {})
