"""Sends the journals that processes left behind: killed ones, offline ones, those of an outage."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mlflow

from mammo.errors import TrackingError
from mammo.tracking import ownership
from mammo.tracking.answers import Away, Refused, asked
from mammo.tracking.delivery import Delivery, identified
from mammo.tracking.journal import Busy, Journal
from mammo.tracking.outbox import now_ms
from mammo.tracking.server import prepare
from mammo.tracking.values import without_password
from mammo.tracking.view import entries_in, seen


@dataclass(frozen=True)
class Outcome:
    """What became of one journal, in words; `whole` when nothing of it is left to send."""

    run_id: str
    said: str
    whole: bool


@dataclass
class _Known:
    """What the journals before have shown."""

    ids: dict[str, str] = field(default_factory=dict)  # of runs at the server, by the client's own
    silent: dict[str, str] = field(default_factory=dict)  # servers that do not answer, and why


def sync(root: Path) -> Iterator[Outcome]:
    """Send each journal in `root`, oldest first, to the server that it was written for."""
    known = _Known()
    journals = [(next(entries_in(each), {}), each) for each in sorted(root.glob("*"))]
    for _, folder in sorted(journals, key=lambda each: int(each[0].get("time", 0))):
        try:
            journal = Journal(folder)
        except Busy:
            yield Outcome(folder.name, "skipped: its process is still at work", True)
            continue
        if journal.lines:
            yield _sent(journal, known)
        else:  # killed before its first line was whole
            journal.retire(0)
    with contextlib.suppress(OSError):
        root.rmdir()


def _sent(journal: Journal, known: _Known) -> Outcome:
    address, folder = str(journal.about.get("address", "")), journal.folder
    if address in known.silent:
        journal.close()
        return Outcome(folder.name, f"not sent: {known.silent[address]}", False)
    _try_again(journal)
    client = _client(address)
    look: Callable[[str], str] = lambda each: known.ids.get(each) or identified(client, each)  # noqa: E731
    delivery = Delivery(journal, client, look)
    try:
        _send(delivery)
        if seen(entries_in(folder), "").status == "RUNNING" and not delivery.waiting:
            _end(journal, delivery)
    except Away as away:
        said, whole = f"not sent: {address} does not answer ({away})", False
        if not away.reached:
            known.silent[address] = f"{address} does not answer ({away})"
    else:
        said, whole = _outcome(delivery)
    known.ids[folder.name] = delivery.run_id
    run_id = delivery.run_id or folder.name
    if delivery.taken_over:
        journal.set_aside()
    elif not whole or not journal.retire(journal.lines):
        journal.close()
    return Outcome(run_id, said, whole)


def _send(delivery: Delivery) -> None:
    """Send all that the server takes; a file that it does not take holds back no other."""
    before = -1
    while delivery.waiting and delivery.waiting != before and not delivery.hopeless:
        before = delivery.waiting
        delivery.send_words()
        going = True
        while going:
            try:
                going = delivery.send_file()
            except Away as away:
                if not away.reached:
                    raise


def _outcome(delivery: Delivery) -> tuple[str, bool]:
    """What was sent, in words, and whether that is all."""
    if delivery.taken_over:
        return "not sent: another process went on with this run; set aside beside the spool", True
    said = ", ".join(f"{n} {kind}" for kind, n in sorted(delivery.sent.items())) or "nothing"
    left = [f"{each.path} is not taken ({each.reason})" for each in delivery.parcels.stuck]
    left += [delivery.complaint] if delivery.complaint else []
    return "; ".join([f"sent {said}", *left]), not (left or delivery.waiting)


def _end(journal: Journal, delivery: Delivery) -> None:
    """End a run whose process is gone without a word, unless another one goes on with it."""
    try:
        found = asked(delivery.client.get_run, delivery.run_id)
        ownership.refuse_second(found)
    except (Refused, TrackingError):
        return
    if found.info.status == "FINISHED":  # by another process
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


def _client(address: str) -> mlflow.MlflowClient:
    prepare()
    own = str(mlflow.get_tracking_uri())  # a journal keeps no password of an address
    return mlflow.MlflowClient(own if address == without_password(own) else address)
