"""`mammo gc`: files that no run names, on the tracking server and in the work folder."""

import fcntl
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo.commands import call
from mammo.settings import NonNegativeFloat

if TYPE_CHECKING:
    from mammo.tracking.leftovers import Books

DAY_S = 86_400
ENDED = {"FINISHED", "FAILED", "KILLED"}
_FETCHED = re.compile(r"([0-9a-f]{32})-.+")  # the cache of what has no digest of its own


def command(arguments: Sequence[str]) -> int:
    return call("gc", run, arguments)


def run(*, days: NonNegativeFloat = 30.0, delete: bool = False, work_dir: str = "") -> int:
    """Say what belongs to no run: artifacts at the tracking server, files in the work folder.

    At the server these are the artifacts of runs, logged models and experiments that it does not
    know; what is only in its bin is the administrator's (make gc). In the work folder: datasets and
    models that no run names, features, the state and the spool of runs that have ended, were
    deleted or were taken up by another process; only what was not touched for --days. Nothing is
    deleted unless --delete true.
    """
    from mammo.driver import work_folder
    from mammo.tracking import Tracking
    from mammo.tracking.leftovers import leftovers, read_books

    tracking = Tracking()
    verb = "deleted" if delete else "would delete"
    remote = leftovers(tracking)
    for each in remote:
        if delete:
            each.delete()
        print(f"{verb} {each.root.rstrip('/')}/{each.path}: {each.reason}", flush=True)
    work = work_folder(work_dir)
    books = read_books(tracking)
    local = list(_local(work, books, tracking.address, time.time() - days * DAY_S))
    freed = sum(_bytes(each.path) for each in local)
    for found in local:
        size = _bytes(found.path)
        with _held(found.lock) as free:
            if not free:
                continue
            if delete:
                shutil.rmtree(found.path)
        print(f"{verb} {found.path}: {found.reason}; {size / 1e6:.1f} MB", flush=True)
    said = {"artifacts": len(remote), "folders": len(local), "bytes": freed, "deleted": delete}
    print(json.dumps(said), flush=True)
    return 0


@dataclass(frozen=True)
class Found:
    """A folder of the work folder that may go, and the file that a process at work would lock."""

    path: Path
    reason: str
    lock: Path | None = None


def _local(work: Path, books: "Books", address: str, before: float) -> Iterator[Found]:
    """What in the work folder no run needs and nobody has touched since `before` (seconds)."""
    for found in (
        *_cached(work, books, address),
        *_states(work, books, address),
        *_spooled(work, books, address),
        *_features(work),
    ):
        with _held(found.lock) as free:
            if free and _touched(found.path) < before:
                yield found


def _cached(work: Path, books: "Books", address: str) -> Iterator[Found]:
    """Datasets and models that no run at `address` names, and downloads that were cut short."""
    needed = set(books.named)
    about = {path.parent.name: path for path in sorted(work.glob("datasets/*/dataset.json"))}
    left = sorted(needed & about.keys())
    while left:  # a mixed dataset's pixels lie in those that it was made from
        parents = {each.get("digest", "") for each in _read(about[left.pop()]).get("parents", [])}
        left += sorted((parents & about.keys()) - needed)
        needed |= parents
    for kind in ("dataset", "model"):
        for path in sorted(work.glob(f"{kind}s/*/{kind}.json")):
            name = path.parent.name
            fetched = _FETCHED.fullmatch(name)
            if name not in needed and not (fetched and fetched[1] in needed):
                yield Found(path.parent, f"no run at {address} names this {kind}")
        for path in sorted(work.glob(f"{kind}s/.download-*")):
            yield Found(path, "a download that was cut short")


def _states(work: Path, books: "Books", address: str) -> Iterator[Found]:
    """What runs keep to be continued, where they are finished or gone."""
    for path in sorted(work.glob("runs/*/run.json")):
        saved = _read(path)
        state = books.states.get(str(saved.get("run_id")), "gone")
        if (work / "spool" / str(saved.get("run_id"))).exists():
            continue  # logged offline, and not yet sent
        if saved.get("tracking_uri") == address and state in ("FINISHED", "DELETED", "gone"):
            lock = path.parents[1] / "locks" / path.parent.name
            reason = f"the state of run {saved.get('run_id')}, which is {state.lower()}"
            yield Found(path.parent, reason, lock)


def _spooled(work: Path, books: "Books", address: str) -> Iterator[Found]:
    """Journals of runs that were deleted, or that ended and have nothing left to send.

    One that the server has not given an id yet is never among them: `mammo sync` sends it.
    """
    for path in sorted(work.glob("spool/*/journal.jsonl")):
        with path.open() as file:
            about = _parsed(file.readline())
        cursor = _read(path.parent / "cursor")
        run_id = str(cursor.get("run_id") or about.get("run_id") or "")
        if not run_id or about.get("address") != address:
            continue
        state = books.states.get(run_id, "gone")
        sent = min(int(cursor.get("words", 0)), int(cursor.get("files", 0)))
        whole = sent >= path.stat().st_size and not cursor.get("aside")
        if state in ("DELETED", "gone") or (state in ENDED and whole):
            yield Found(path.parent, f"the journal of run {run_id}, which is {state.lower()}", path)
    for path in sorted(work.glob("taken/*")):
        yield Found(path, "what was logged of a run that another process took up")


def _features(work: Path) -> Iterator[Found]:
    """Features of frozen backbones, a folder for each; who asks for them again computes them."""
    for path in sorted(work.glob("features/*")):
        yield Found(path, "features that no training asks for", path / "lock")


@contextmanager
def _held(lock: Path | None) -> Iterator[bool]:
    """Hold a file that a process at work locks; False when one does."""
    if lock is None or not lock.exists():
        yield True
        return
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def _touched(folder: Path) -> float:
    """When a folder or something in it was last changed, in seconds."""
    return max(each.stat().st_mtime for each in (folder, *folder.rglob("*")))


def _bytes(folder: Path) -> int:
    """Bytes of a folder's files that no other folder shares."""
    files = [each.lstat() for each in folder.rglob("*")]
    return sum(each.st_size for each in files if each.st_nlink == 1)


def _read(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_text())
    except OSError:
        return {}


def _parsed(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
