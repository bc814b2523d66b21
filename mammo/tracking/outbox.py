"""The journals of a process's runs: what is logged goes in, and one thread brings it away."""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from mammo.tracking.delivery import Delivery, identified
from mammo.tracking.journal import Busy, Journal
from mammo.tracking.ownership import Taken
from mammo.tracking.sender import Sender
from mammo.tracking.view import View, entries_in, seen

LOG = logging.getLogger("mammo")


class Outbox:
    """Journals in `root`, a folder a run, and their way to the server at `address`."""

    def __init__(self, client: MlflowClient, address: str, root: Path, *, offline: bool) -> None:
        self.root, self.address, self.offline = root, address, offline
        self.sender = Sender(client, self.known, self._remember)
        self._client = client
        self._journals: dict[str, Journal] = {}  # by every id of the run
        self._deliveries: dict[str, Delivery] = {}
        self._aliases: dict[str, str] = {}  # ids that a client made: ids of the server
        self._views: dict[str, View] = {}  # of runs that are sent, by id of the server
        self._complaints: list[str] = []  # about runs that are sent, as far as they were taken
        self.taken_over: set[str] = set()  # every id of runs that another process goes on with

    def create(self, about: Mapping[str, Any]) -> Delivery | None:
        """Begin the journal of a new run, whose id `about` holds; None offline."""
        return self._opened(str(about["id"]), about)

    def append(self, run_id: str, entry: Mapping[str, Any], *, file: str = "") -> None:
        """Log an entry of a run, which takes microseconds."""
        if run_id in self.taken_over:
            return
        journal = self._journals.get(run_id)
        while journal is None or not journal.append(entry, file=file):
            journal = self._journal(run_id)
        delivery = self._deliveries.get(run_id)
        if delivery is not None and entry["kind"] in ("end", "reopen"):
            delivery.beating = entry["kind"] == "reopen"

    def keep(self, run_id: str, source: Path | bytes, name: str, folder: str, **more: str) -> None:
        """Log a file, kept as it is now until it is sent, as `folder`/`name` of a run."""
        while run_id not in self.taken_over:
            journal = self._journals.get(run_id) or self._journal(run_id)
            kept = journal.keep(source, name)
            entry: dict[str, Any] = {"kind": "file", "file": kept, "folder": folder, **more}
            if kept:
                entry["bytes"] = journal.files.size(kept)
            if not kept or journal.append(entry, file=kept):
                return
            self._journals.pop(run_id, None)

    def beat(self, run_id: str) -> None:
        """The run goes on in this process."""
        self._journal(run_id)
        if run_id in self._deliveries:
            self._deliveries[run_id].beating = True

    def flush(self, timeout_s: float, run_id: str = "") -> bool:
        """Whether all that was logged, or all of one run, is at the server within `timeout_s`."""
        if self.offline:
            return False
        only = [self._deliveries[run_id]] if run_id in self._deliveries else None
        return self.sender.flush(timeout_s, only)

    @property
    def stuck(self) -> str:
        """A file that the server did not take, in words; empty for none."""
        for each in self.sender.deliveries:
            for parcel in each.parcels.stuck:
                what = f"{parcel.path} of run {each.run_id} ({parcel.reason})"
                return f"the tracking store at {self.address} does not take {what}"
        return ""

    @property
    def missed_since(self) -> float:
        """Since when something logged waits in vain (time.monotonic); 0 for nothing."""
        files = [part.since for each in self.sender.deliveries for part in each.parcels.stuck]
        return min(filter(None, [self.sender.words.since, *files]), default=0.0)

    def complaints(self) -> list[str]:
        """What the server refused, and what the disk and the memory had no room for."""
        said = [each.complaint for each in self.sender.deliveries if each.complaint]
        lost = sum(each.lost for each in {id(j): j for j in self._journals.values()}.values())
        if lost:
            said.append(f"{lost} entries were lost: the disk of {self.root} is full; make room")
        return self._complaints + said

    def close(self) -> list[str]:
        """Let go of all journals; returns the folders of those that are not sent."""
        left = [each.journal.folder for each in self.sender.stop()]
        if self.offline:
            left = sorted({each.folder for each in self._journals.values()})
        for journal in self._journals.values():
            journal.close()
        self._journals.clear()
        self._deliveries.clear()
        with contextlib.suppress(OSError):
            self.root.rmdir()
        return [str(each) for each in left if each.exists()]

    def release(self, run_id: str) -> None:
        """Leave a run, and what is not sent of it, to another process."""
        journal, delivery = self._journals[run_id], self._deliveries.get(run_id)
        if delivery is not None:
            self.sender.release(delivery)
        journal.close()
        held = [name for name, each in self._journals.items() if each is journal]
        for name in held:
            del self._journals[name]
            self._deliveries.pop(name, None)

    def abandon(self, run_id: str) -> None:
        """Forget a run that could not be created."""
        journal = self._journals.pop(run_id)
        delivery = self._deliveries.pop(run_id)
        delivery.beating = False
        with contextlib.suppress(ValueError):
            self.sender.deliveries.remove(delivery)
        journal.close()
        shutil.rmtree(journal.folder, ignore_errors=True)

    def known(self, identity: str) -> str:
        """The server's id of the run that a client gave `identity`; empty for none. May be Away."""
        for each in self.sender.deliveries:
            if each.journal.about.get("id") == identity and each.run_id:
                self._aliases[identity] = each.run_id
        if identity not in self._aliases:
            found = identified(self._client, identity)
            if not found:
                return ""
            self._aliases[identity] = found
        return self._aliases[identity]

    def server_id(self, run_id: str) -> str:
        """The server's id where it is known already, else `run_id` itself."""
        delivery = self._deliveries.get(run_id)
        if delivery is not None and delivery.run_id:
            return delivery.run_id
        return self._aliases.get(run_id, run_id)

    def is_local(self, run_id: str) -> bool:
        """Whether the server has not created this run yet, as far as is known here."""
        delivery = self._deliveries.get(run_id)
        if delivery is not None:
            return not delivery.run_id
        return run_id not in self._aliases and (self.root / run_id / "journal.jsonl").is_file()

    def view(self, run_id: str, metric: str = "") -> View | None:
        """What is known here of a run, with all values of `metric`."""
        remembered = self._views.get(self.server_id(run_id))
        view = seen(entries_in(self._folder(run_id)), run_id, metric)
        return view if view.about.get("name") else remembered

    def views(self) -> Iterator[View]:
        """All runs that are known here, newest first."""
        found = list(self._views.values())
        for folder in sorted(self.root.glob("*")):
            view = seen(entries_in(folder), self.server_id(folder.name))
            if view.about and view.run_id not in self._views:
                found.append(view)
        yield from sorted(found, key=lambda each: -int(each.about.get("time", 0)))

    def kept(self, run_id: str, path: str) -> dict[str, Path]:
        """Files of the artifact `path` of a run that are still here: by their path below it."""
        view, folder = self.view(run_id), self._folder(run_id)
        found = {}
        for each, name in view.files.items() if view else ():
            place = folder / "files" / name
            if (each == path or each.startswith(f"{path}/")) and place.is_file():
                found[each.removeprefix(path).removeprefix("/")] = place
        return found

    def _journal(self, run_id: str) -> Journal:
        """The journal of a run that the server has, or that an earlier process began."""
        journal = self._journals.get(run_id)
        if journal is None or journal.retired:
            real = self.server_id(run_id)
            self._opened(run_id, {"kind": "about", "id": real, "run_id": real})
        return self._journals[run_id]

    def _opened(self, run_id: str, about: Mapping[str, Any]) -> Delivery | None:
        folder = self.root / run_id if about.get("name") else self._folder(run_id)
        try:
            journal = Journal(folder, {**about, "address": self.address})
        except Busy:
            raise Taken(
                f"run {run_id} is being written by another process (lock in {folder}); wait for it"
            ) from None
        names = {run_id, folder.name}
        delivery = None
        if not self.offline:
            delivery = self.sender.add(journal)
            names |= {delivery.run_id} - {""}
            self._deliveries |= dict.fromkeys(names, delivery)
        self._journals |= dict.fromkeys(names, journal)
        return delivery

    def name(self, run_id: str, server_id: str) -> None:
        """The run that began as `run_id` is `server_id` at the server."""
        self._aliases[run_id] = server_id
        self._journals[server_id] = self._journals[run_id]
        self._deliveries[server_id] = self._deliveries[run_id]

    def _folder(self, run_id: str) -> Path:
        """The folder of a run's journal: its name is the id that the client gave it."""
        if run_id in self._journals and not self._journals[run_id].retired:
            return self._journals[run_id].folder
        if not (self.root / run_id).exists():
            for cursor in sorted(self.root.glob("*/cursor")):
                with contextlib.suppress(OSError, ValueError):
                    if json.loads(cursor.read_text()).get("run_id") == run_id:
                        return cursor.parent
        return self.root / run_id

    def _remember(self, delivery: Delivery) -> None:
        """Keep in mind what a run was whose journal goes."""
        entries = entries_in(delivery.journal.folder)
        if delivery.complaint:
            self._complaints.append(delivery.complaint)
        if delivery.taken_over:
            held = self._journals.items()
            self.taken_over |= {name for name, each in held if each is delivery.journal}
        if delivery.run_id:
            self._aliases[str(delivery.journal.about.get("id"))] = delivery.run_id
            view = seen(entries, delivery.run_id)
            if view.about.get("name") or view.tags:
                self._views[delivery.run_id] = view


def now_ms() -> int:
    """Now, in MLflow's milliseconds."""
    return int(time.time() * 1000)
