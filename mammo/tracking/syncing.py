"""Sends the journals that processes left behind: killed ones, offline ones, those of an outage."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mlflow

from mammo.errors import TrackingError
from mammo.tracking import ownership
from mammo.tracking.answers import Away, Refused, asked
from mammo.tracking.delivery import Delivery, identified
from mammo.tracking.journal import Busy, Journal
from mammo.tracking.outbox import now_ms
from mammo.tracking.server import prepare
from mammo.tracking.view import entries_in, seen


@dataclass(frozen=True)
class Outcome:
    """What became of one journal, in words; `whole` when nothing of it is left to send."""

    run_id: str
    said: str
    whole: bool


def sync(root: Path) -> Iterator[Outcome]:
    """Send each journal in `root`, oldest first, to the server that it was written for."""
    ids: dict[str, str] = {}
    journals = [(next(entries_in(each), {}), each) for each in sorted(root.glob("*"))]
    for first, folder in sorted(journals, key=lambda each: int(each[0].get("time", 0))):
        if not first:  # killed before its first line was whole
            shutil.rmtree(folder, ignore_errors=True)
            continue
        yield _sent(folder, ids)
    with contextlib.suppress(OSError):
        root.rmdir()


def _sent(folder: Path, ids: dict[str, str]) -> Outcome:
    try:
        journal = Journal(folder)
    except Busy:
        return Outcome(folder.name, "skipped: its process is still at work", True)
    _try_again(journal)
    client = _client(str(journal.about.get("address", "")))
    known: Callable[[str], str] = lambda each: ids.get(each) or identified(client, each)  # noqa: E731
    delivery = Delivery(journal, client, known)
    try:
        before = -1
        while delivery.waiting and delivery.waiting != before and not delivery.hopeless:
            before = delivery.waiting
            delivery.send_words()
            while delivery.send_file():
                pass
        if seen(entries_in(folder), "").status == "RUNNING" and not delivery.waiting:
            _end(journal, delivery)
    except Away as away:
        said, whole = f"not sent: {journal.about.get('address')} does not answer ({away})", False
    else:
        said = ", ".join(f"{n} {kind}" for kind, n in sorted(delivery.sent.items())) or "nothing"
        whole = not delivery.rejected and not delivery.waiting
        said = f"sent {said}" if whole else f"sent {said}; {delivery.complaint}"
    ids[folder.name] = delivery.run_id
    run_id = delivery.run_id or folder.name
    if not whole or not journal.retire(journal.lines):
        journal.close()
    return Outcome(run_id, said, whole)


def _end(journal: Journal, delivery: Delivery) -> None:
    """End a run whose process is gone without a word, unless another one goes on with it."""
    try:
        ownership.refuse_second(asked(delivery.client.get_run, delivery.run_id))
    except (Refused, TrackingError):
        return
    tags = {"mammo.stopped": "its process ended without a word"}
    journal.append({"kind": "end", "status": "KILLED", "time": now_ms(), "tags": tags})
    delivery.send_words()


def _try_again(journal: Journal) -> None:
    """Put what the server refused before at the journal's end."""
    place = journal.folder / "rejected.jsonl"
    if not place.is_file():
        return
    for line in place.read_text().splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            entry.pop("reason", None)
            if entry["kind"] not in ("about", "spoilt"):
                journal.append(entry)
    place.unlink()


@cache
def _client(address: str) -> mlflow.MlflowClient:
    prepare()
    return mlflow.MlflowClient(address)
