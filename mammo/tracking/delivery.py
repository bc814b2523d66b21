"""Brings the journal of a run to the server: numbers and words first, files, then its end."""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mammo.tracking.answers import Away, Refused, asked
from mammo.tracking.experiments import every, opened
from mammo.tracking.journal import Entry, Journal
from mammo.tracking.ownership import BEAT_S, HEARTBEAT, OWNER, owner
from mammo.tracking.parcels import Parcel, Parcels
from mammo.tracking.portions import Item, Portion, portions
from mammo.tracking.rejections import Rejections
from mammo.tracking.values import storable
from mammo.tracking.view import entries_in
from mammo.tracking.words import Words

LOG = logging.getLogger("mammo")
IDENTITY = "mammo.id"
ENDINGS = {"error", "mammo.stopped", "mammo.pruned", "mammo.reaped"}  # how a run ended


class Delivery:
    """Where the server stands with one journal."""

    def __init__(self, journal: Journal, client: MlflowClient, known: Callable[[str], str]) -> None:
        self.journal = journal
        self.run_id = str(journal.about.get("run_id", ""))  # of the server, empty until it has one
        self.rejected = Rejections(journal.folder)
        self.parcels = Parcels(journal)
        self.taken = 0  # entries that are sent or refused, or whose file is in `parcels`
        self.beating = False  # the run goes on in this process
        self.put_off = 0.0  # time.monotonic when a file of it was not taken last
        self.hopeless = False  # the server refuses the run itself, or it is another's by now
        self.taken_over = False  # another process goes on with the run
        self.sent = Counter[str]()  # by kind
        self.client, self._known = client, known
        self._place = 0  # up to here all words are sent
        self._words: Words | None = None
        self._owner = ""  # who wrote the journal, as the server was told
        # what another process left is sent only after a look at who writes the run now
        self._beaten = 0.0 if journal.old else time.time()
        self._take_up()

    def reached(self, lines: int) -> bool:
        """Whether the server has the first `lines` entries, or has refused them."""
        behind = any(each.number <= lines for each in self.parcels)
        return self.hopeless or (self.taken >= lines and not behind)

    @property
    def waiting(self) -> int:
        """Entries that are still to be sent."""
        return self.journal.lines - self.taken + len(self.parcels)

    def send_words(self) -> None:
        """Send all numbers and words as far as an end that waits for files; may raise Away."""
        self.journal.synchronize()
        until = self.journal.end  # what is logged meanwhile goes with the next batch
        going = not self.hopeless and self._goes_on()
        while going and self._place < until and not self.journal.retired:
            going = self._send(self.journal.read(self._place))
        if going:
            self._send_from_memory()

    def send_file(self) -> bool:
        """Send the next file; False when there is none to try now. May raise Away."""
        parcel = self.parcels.next() if self.run_id and not self.hopeless else None
        if parcel is None:
            return False
        refused = self.parcels.send(parcel, self.client, self.run_id)
        saved = self._save_place()  # before it is gone from here: it would be missed
        if refused:
            self.rejected.add(parcel.entry, refused)
            return True
        self.journal.files.release(parcel.entry["file"])
        self.sent["files"] += 1
        if not saved:  # there is room now
            self._save_place()
        return True

    def _goes_on(self) -> bool:
        """Whether the run is still this journal's to write; once a minute its heart beats too.

        A heart that an outage kept silent may have been taken for dead.
        """
        if not self.run_id or 0 <= time.time() - self._beaten < BEAT_S:
            return True
        if self._owner and self._is_anothers():
            self.taken_over = self.hopeless = True
            LOG.warning("%s", self.complaint)
            return False
        if self.beating:
            self.words.send([Item("tags", HEARTBEAT, str(int(time.time())))])
        self._beaten = time.time()
        return True

    def _is_anothers(self) -> bool:
        try:
            tags = asked(self.client.get_run, self.run_id).data.tags
        except Refused:  # it is gone, which is told of all that is sent
            return False
        return tags.get(OWNER, "") not in ("", self._owner, owner())

    def _take_up(self) -> None:
        """Go on where a process that is gone left off."""
        try:
            saved = json.loads((self.journal.folder / "cursor").read_text())
            words, files = int(saved["words"]), int(saved["files"])
            aside = set(saved.get("aside", []))
        except (OSError, ValueError, KeyError, TypeError):
            return
        self.run_id = self.run_id or str(saved["run_id"])
        while self._place < min(words, self.journal.end):
            for entry, after in self.journal.read(self._place):
                if after > words:
                    break
                self.taken += 1
                self._place = after
                self._owner = _owner_in(entry) or self._owner
                if entry.get("kind") == "file" and (after > files or after in aside):
                    self.parcels.add(Parcel(entry, self.taken, after))

    def _save_place(self) -> bool:
        """Write down how far all is sent; on a full disk it will be sent again, which is safe."""
        files, aside = self.parcels.places(self._place)
        said = {"run_id": self.run_id, "words": self._place, "files": files, "aside": aside}
        try:
            scratch = self.journal.folder / "cursor.new"
            scratch.write_text(json.dumps(said))
            scratch.replace(self.journal.folder / "cursor")
        except OSError:
            return False
        return True

    def _send(self, entries: list[tuple[Entry, int]]) -> bool:
        """Send what was read from the file; False where an end has to wait for files."""
        for portion in portions(entries):
            if not self._take(portion):
                return False
            self._place = portion.after
            self._save_place()
        return True

    def _send_from_memory(self) -> None:
        """Send what a full disk did not take, as far as an end that waits for files."""
        entries, done = self.journal.lend(self._place), 0
        try:
            for portion in portions((entry, self._place) for entry in entries):
                if not self._take(portion):
                    return
                done += portion.lines
        finally:
            self.journal.give_back(done)

    def _take(self, portion: Portion) -> bool:
        entry = portion.other
        if not self.run_id and (entry or {}).get("kind") != "about":  # its first line is spoilt
            self.hopeless = True
            self.rejected.note("the first line of the journal")
            return False
        if entry is None:
            self.words.send(portion.items)
            tags = {each.name: each.value for each in portion.items if each.kind == "tags"}
            self._owner = _owner_in({"tags": tags}) or self._owner
        elif entry["kind"] == "file":
            self.parcels.add(Parcel(entry, self.taken + 1, portion.after))
        elif entry["kind"] == "end" and self.parcels:
            return False
        else:
            try:
                _DO.get(entry["kind"], _DO["spoilt"])(self, entry)
            except Refused as refused:
                self.rejected.add(entry, str(refused))
                if entry["kind"] == "about":
                    self.hopeless = True
                    return False
        self.taken += portion.lines
        return True

    def _begin(self, about: Entry) -> None:
        """Create the run, unless the server has it already."""
        if self.run_id:
            return
        if self.journal.asked:  # an answer may have been lost
            self.run_id = self._known(about["id"])
        self._owner = self._owner or _owner_in(about)
        if self.run_id:
            return
        tags = {name: storable(value) for name, value in about["tags"].items()}
        if parent := about.get("parent"):
            beside = self.journal.folder.parent / parent
            known = self._known(parent) or _at_server(beside)
            if not known and beside.exists():
                raise Away(f"its parent {parent} is not there yet", reached=True)
            tags[MLFLOW_PARENT_RUN_ID] = known or parent
        experiment = about.get("experiment_id") or self._experiment(about["experiment"])
        self.journal.asked = True
        made = asked(
            *(self.client.create_run, experiment, about["time"]),
            tags=tags,
            run_name=storable(about["name"]),
        )
        self.run_id = str(made.info.run_id)

    def _experiment(self, name: str) -> str:
        found = asked(self.client.get_experiment_by_name, name)
        if found is None:
            found = asked(opened, self.client, name)
        return str(found.experiment_id)

    def _reopen(self, entry: Entry) -> None:
        """RUNNING again, and without what the run said of its last end."""
        tags = asked(self.client.get_run, self.run_id).data.tags
        for name in sorted(tags.keys() & ENDINGS):
            asked(self.client.delete_tag, self.run_id, name)
        asked(self.client.update_run, self.run_id, status="RUNNING")

    def _end(self, entry: Entry) -> None:
        status, tags = entry["status"], dict(entry["tags"])
        if self.rejected and status == "FINISHED":
            status, tags["error"] = "FAILED", self.complaint
        if tags:
            self.words.send([Item("tags", name, value) for name, value in tags.items()])
        asked(self.client.set_terminated, self.run_id, status, entry["time"])

    @property
    def words(self) -> Words:
        if self._words is None or self._words.run_id != self.run_id:
            self._words = Words(self.client, self.run_id, self.rejected, self.sent)
        return self._words

    @property
    def complaint(self) -> str:
        """What was refused, or became of the run in other hands, in one line; empty for nothing."""
        if self.taken_over:
            return (
                f"run {self.run_id} was taken up by another process while the tracking server "
                "heard nothing of this one; what this one logged since is not sent"
            )
        return self.rejected.line(self.run_id) if self.rejected else ""


_DO: dict[str, Callable[[Delivery, Entry], None]] = {
    "about": Delivery._begin,
    "reopen": Delivery._reopen,
    "input": lambda delivery, entry: delivery.words.input(entry),
    "end": Delivery._end,
    "spoilt": lambda delivery, entry: delivery.rejected.add(
        entry, "its line is spoilt, or of a newer mammo"
    ),
}


def _at_server(folder: Path) -> str:
    """The server's id of a run that was there before its journal in `folder`; else empty."""
    first: Entry = next(iter(entries_in(folder)), {})
    return str(first.get("run_id", ""))


def _owner_in(entry: Entry) -> str:
    """The process that says in an entry that it goes on with the run; empty for none."""
    return str({**entry.get("tags", {}), **entry.get("values", {})}.get(OWNER, ""))


def identified(client: MlflowClient, identity: str) -> str:
    """The server's id of the run that a client gave `identity`; empty for none. May be Away."""
    places = [each.experiment_id for each in asked(every, client)]
    query = f"tags.`{IDENTITY}` = '{identity}'"
    found = asked(client.search_runs, places, query, max_results=1) if places else []
    return str(found[0].info.run_id) if found else ""
