"""What the stores hold and no run needs, found from the objects' keys and the database.

Rubbish is what belongs to a run or a logged model that the database does not know, or that was
deleted more than N days ago; a logged model goes with the run it came from. What a registered
version is of, and what a run that is there was made from, is kept. Keys of no known form are left
alone. In a versioned bucket deleted objects come back for another N days; versions
that are older than that go for good.
"""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

from keeping import stores

_OWNER = re.compile(r"(?:^|/)(?:(?P<run>[0-9a-f]{32})|models/(?P<model>m-[0-9a-f]{32}))/artifacts/")


@dataclass
class Rubbish:
    """A run or logged model whose objects, and row, may go."""

    kind: str  # run or model
    id: str
    reason: str
    row: bool = False  # whether the database has one
    keys: list[str] = field(default_factory=list)
    bytes: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.id}: {len(self.keys)} objects, {self.bytes} bytes; {self.reason}"


@dataclass(frozen=True)
class Owner:
    """A row of runs or logged_models."""

    id: str
    deleted_ms: int = 0  # when it was deleted; 0 for one that is there
    source_run: str = ""  # of a model


@dataclass(frozen=True)
class Books:
    """What the database says, as far as it decides what is rubbish."""

    runs: dict[str, Owner]
    models: dict[str, Owner]
    registered: dict[str, str]  # id of a run or model -> the version that needs it
    inputs: dict[str, set[str]]  # id of a run -> what its tags name as made from


def kept(books: Books, before_ms: int) -> list[str]:
    """Runs that were deleted long ago and are needed all the same, a line each."""
    lines = []
    for id_ in sorted(_needed(books) & books.runs.keys()):
        if 0 < books.runs[id_].deleted_ms <= before_ms:
            version = books.registered.get(id_)
            why = f"model {version} is of it" if version else "a run that is there was made from it"
            lines.append(f"run {id_}: deleted {_day(books.runs[id_].deleted_ms)}, but {why}")
    return lines


def find(objects: Iterable[tuple[str, int]], books: Books, before_ms: int) -> list[Rubbish]:
    """Rubbish among `objects` (key, bytes), deleted before `before_ms`; sorted by kind and id."""
    needed = _needed(books)
    found: dict[str, Rubbish] = {}
    for run in books.runs.values():
        if run.deleted_ms and run.deleted_ms <= before_ms and run.id not in needed:
            reason = f"deleted {_day(run.deleted_ms)}"
            found[run.id] = Rubbish("run", run.id, reason, row=True)
    for model in books.models.values():
        reason = _why_model(model, books, before_ms, found)
        if reason and model.id not in needed:
            found[model.id] = Rubbish("model", model.id, reason, row=True)
    for key, size in objects:
        owner = _OWNER.search(key)
        if not owner:
            continue
        kind = "run" if owner["run"] else "model"
        id_ = owner["run"] or owner["model"]
        known = books.runs if kind == "run" else books.models
        if id_ not in found and (id_ in known or id_ in needed):
            continue
        each = found.setdefault(id_, Rubbish(kind, id_, "the database does not know it"))
        each.keys.append(key)
        each.bytes += size
    return sorted(found.values(), key=lambda each: (each.kind, each.id))


def _why_model(model: Owner, books: Books, before_ms: int, found: dict[str, Rubbish]) -> str:
    if model.deleted_ms and model.deleted_ms <= before_ms:
        return f"deleted {_day(model.deleted_ms)}"
    if model.source_run in found:
        return f"its run {model.source_run} goes"
    if model.source_run and model.source_run not in books.runs:
        return f"its run {model.source_run} is gone"
    return ""


def _needed(books: Books) -> set[str]:
    """Runs and models that stay: those there, registered ones, and what these were made from."""
    left = [run.id for run in books.runs.values() if not run.deleted_ms] + sorted(books.registered)
    # a registered model's run says what it was made from
    left += [books.models[id_].source_run for id_ in books.registered if id_ in books.models]
    needed: set[str] = set()
    while left:
        each = left.pop()
        if each not in needed:
            needed.add(each)
            left += sorted(books.inputs.get(each, ()))
    return needed


def old_versions(entries: Iterable[dict[str, Any]], before_ms: int) -> list[tuple[str, str, int]]:
    """Versions (key, version, bytes) that another replaced, or a deletion hid, before `before_ms`.

    `entries` are versions and deletion marks in S3's words, those of a key together, newest first.
    A mark goes with the last version that it hides, after it: the other way round would bring the
    version back.
    """
    found = []
    for key, group in groupby(entries, key=itemgetter("Key")):
        newest, *others = group
        replaced = [newest, *others][:-1]  # by whom, for each of the others
        old = [each for each, by in zip(others, replaced, strict=True) if _ms(by) <= before_ms]
        if "ETag" not in newest and len(old) == len(others) and _ms(newest) <= before_ms:
            old.insert(0, newest)
        found += [(key, each["VersionId"], each.get("Size", 0)) for each in reversed(old)]
    return found


def read_books() -> Books:
    """Ask the database of MLflow."""
    connection = stores.database()
    with connection.cursor() as cursor:

        def rows(sql: str) -> list[Any]:
            cursor.execute(sql)
            return list(cursor.fetchall())

        # Deleted before MLflow wrote down when: as if just now.
        now = int(time.time() * 1000)
        gone = f"CASE lifecycle_stage WHEN 'deleted' THEN coalesce(%s, {now}) ELSE 0 END"
        runs = rows(f"SELECT run_uuid, {gone % 'deleted_time'} FROM runs")
        models = rows(
            f"SELECT model_id, {gone % 'last_updated_timestamp_ms'}, coalesce(source_run_id, '') "
            "FROM logged_models"
        )
        versions = rows(
            "SELECT name, version, coalesce(run_id, ''), coalesce(source, ''), "
            "coalesce(storage_location, '') FROM model_versions "
            "WHERE current_stage <> 'Deleted_Internal'"
        )
        tags = rows(
            "SELECT run_uuid, value FROM tags WHERE key LIKE 'mammo.input.%' "
            "OR key IN ('mammo.continues', 'mammo.reused')"
        )
    connection.close()
    registered = {}
    for name, version, *places in versions:
        for place in places:
            for id_ in re.findall(r"m-[0-9a-f]{32}|[0-9a-f]{32}", place):
                registered[id_] = f"{name}/{version}"
    inputs: dict[str, set[str]] = {}
    for run, value in tags:
        inputs.setdefault(run, set()).update(re.findall(r"[0-9a-f]{32}", value))
    return Books(
        {id_: Owner(id_, ms) for id_, ms in runs},
        {id_: Owner(id_, ms, source) for id_, ms, source in models},
        registered,
        inputs,
    )


def _day(time_ms: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time_ms / 1000))


def _ms(entry: dict[str, Any]) -> float:
    return float(entry["LastModified"].timestamp() * 1000)
