"""Brings the journal of a run to the server: numbers and words first, files, then its end."""

import contextlib
import json
import re
import time
from collections import Counter, deque
from collections.abc import Callable

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mammo.tracking.answers import Away, Refused, asked
from mammo.tracking.experiments import opened
from mammo.tracking.journal import Entry, Journal
from mammo.tracking.pictures import encoded
from mammo.tracking.portions import Item, Portion, entry_of, portions
from mammo.tracking.values import same_value

IDENTITY, HEARTBEAT, OWNER = "mammo.id", "mammo.heartbeat", "mammo.owner"
BEAT_S = 60.0  # between two heartbeats
# MLflow looks for a dataset and then inserts it; of two processes at once, the second fails
_AT_ONCE = re.compile("UNIQUE constraint failed: datasets|duplicate key value violates unique")
ENDINGS = {"error", "mammo.stopped", "mammo.pruned", "mammo.reaped"}  # how a run ended


class Delivery:
    """Where the server stands with one journal."""

    def __init__(self, journal: Journal, client: MlflowClient, known: Callable[[str], str]) -> None:
        self.journal = journal
        self.run_id = str(journal.about.get("run_id", ""))  # of the server, empty until it has one
        self.rejected: list[str] = []  # reasons
        self.taken = 0  # entries that are sent or refused, or whose file is in `_files`
        self.beating = False  # the run goes on in this process
        self.hopeless = False  # the server refuses the run itself
        self.sent = Counter[str]()  # by kind
        self.client, self._known = client, known
        self._files: deque[tuple[Entry, int, int]] = deque()  # entry, its number, place behind it
        self._place = 0  # up to here all words are sent
        self._params: dict[str, str] | None = None  # what the server holds
        self._beat = time.monotonic()
        self._take_up()

    def reached(self, lines: int) -> bool:
        """Whether the server has the first `lines` entries, or has refused them."""
        behind = self._files and self._files[0][1] <= lines
        return self.hopeless or (self.taken >= lines and not behind)

    @property
    def waiting(self) -> int:
        """Entries that are still to be sent."""
        return self.journal.lines - self.taken + len(self._files)

    def send_words(self) -> None:
        """Send all numbers and words as far as an end that waits for files; may raise Away."""
        self.journal.synchronize()
        until = self.journal.end  # what is logged meanwhile goes with the next batch
        going = not self.hopeless
        while going and self._place < until and not self.journal.retired:
            going = self._send(self.journal.read(self._place))
        if going:
            self._send_from_memory()
        if self.beating and self.run_id and time.monotonic() - self._beat > BEAT_S:
            self._beat = time.monotonic()
            self._batch([Item("tags", HEARTBEAT, str(int(time.time())))])

    def send_file(self) -> bool:
        """Send the next file; False when there is none. May raise Away."""
        if not self._files or not self.run_id:
            return False
        entry = self._files[0][0]
        image, folder = entry.get("image", ""), entry["folder"] or None
        try:
            with contextlib.ExitStack() as stack:
                place = stack.enter_context(self.journal.opened(entry["file"]))
                for each in stack.enter_context(encoded(place, image)) if image else [place]:
                    asked(self.client.log_artifact, self.run_id, str(each), folder)
            refused = ""
        except FileNotFoundError:
            refused = "the file is gone"
        except Refused as error:
            refused = str(error)
        if refused:
            self._reject(entry, refused)
        else:
            self.journal.release(entry["file"])
            self.sent["files"] += 1
        self._files.popleft()
        self._save_place()
        return True

    def _take_up(self) -> None:
        """Go on where a process that is gone left off."""
        try:
            saved = json.loads((self.journal.folder / "cursor").read_text())
            words, files = int(saved["words"]), int(saved["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        self.run_id = self.run_id or str(saved["run_id"])
        while self._place < min(words, self.journal.end):
            for entry, after in self.journal.read(self._place):
                if after > words:
                    break
                self.taken += 1
                self._place = after
                if after > files and entry.get("kind") == "file":
                    self._files.append((entry, self.taken, after))

    def _save_place(self) -> None:
        """Write down how far all is sent; on a full disk it will be sent again, which is safe."""
        files = self._files[0][2] - 1 if self._files else self._place
        said = {"run_id": self.run_id, "words": self._place, "files": files}
        with contextlib.suppress(OSError):
            scratch = self.journal.folder / "cursor.new"
            scratch.write_text(json.dumps(said))
            scratch.replace(self.journal.folder / "cursor")

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
            self.rejected.append("the first line of the journal")
            return False
        if entry is None:
            self._batch(portion.items)
        elif entry["kind"] == "file":
            self._files.append((entry, self.taken + 1, portion.after))
        elif entry["kind"] == "end" and self._files:
            return False
        else:
            try:
                _DO.get(entry["kind"], _DO["spoilt"])(self, entry)
            except Refused as refused:
                self._reject(entry, str(refused))
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
        if self.run_id:
            return
        tags = dict(about["tags"])
        if about.get("parent"):
            tags[MLFLOW_PARENT_RUN_ID] = self._known(about["parent"]) or about["parent"]
        experiment = about.get("experiment_id") or self._experiment(about["experiment"])
        self.journal.asked = True
        made = asked(
            *(self.client.create_run, experiment, about["time"]),
            tags=tags,
            run_name=about["name"],
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
            self._batch([Item("tags", name, value) for name, value in tags.items()])
        asked(self.client.set_terminated, self.run_id, status, entry["time"])

    @property
    def complaint(self) -> str:
        """What the server refused, in one line."""
        more = f" and {len(self.rejected) - 1} more" if len(self.rejected) > 1 else ""
        return (
            f"the tracking server refused {self.rejected[0]}{more} of run {self.run_id}; "
            f"it is kept in {self.journal.folder / 'rejected.jsonl'}"
        )

    def _input(self, entry: Entry) -> None:
        source, profile = json.dumps({"digest": entry["digest"]}), {"num_rows": entry["rows"]}
        # MLflow keeps one context for a name and digest; the same dataset may serve in several
        dataset = Dataset(
            *(f"{entry['name']} {entry['context']}", entry["digest"][:36], "mammo", source),
            profile=json.dumps(profile),
        )
        tag = InputTag("mlflow.data.context", entry["context"])
        try:
            asked(self.client.log_inputs, self.run_id, [DatasetInput(dataset, [tag])])
        except Refused as refused:
            if not _AT_ONCE.search(str(refused)):
                raise
            raise Away(f"{refused}, by another run at the same moment") from refused

    def _batch(self, items: list[Item], *, whole: bool = True) -> None:
        """Send a batch; one that is refused in halves, down to the one that is to blame."""
        try:
            self._log(items)
        except Refused as refused:
            if len(items) == 1 or (whole and self._is_gone()):
                for item in items:
                    self._reject(entry_of(item), str(refused))
                return
            middle = len(items) // 2
            self._batch(items[:middle], whole=False)
            self._batch(items[middle:], whole=False)

    def _log(self, items: list[Item]) -> None:
        metrics = [
            Metric(each.name, each.value, each.time, each.step)
            for each in items
            if each.kind == "metrics"
        ]
        tags = [RunTag(each.name, each.value) for each in items if each.kind == "tags"]
        params = self._new_params([each for each in items if each.kind == "params"])
        entries = [Param(name, value) for name, value in params.items()]
        if metrics or tags or entries:
            asked(self.client.log_batch, self.run_id, metrics=metrics, params=entries, tags=tags)
        self.sent.update(each.kind for each in items)
        if self._params is not None:
            self._params |= params

    def _new_params(self, items: list[Item]) -> dict[str, str]:
        """What to log: a setting that the server holds with another value is `effective.<name>`."""
        if items and self._params is None:
            self._params = dict(asked(self.client.get_run, self.run_id).data.params)
        held, new = self._params or {}, dict[str, str]()
        for item in items:
            if item.name not in held:
                new[item.name] = item.value
                continue
            name = f"effective.{item.name}"
            if name not in held and not same_value(held[item.name], item.value):
                new[name] = item.value
        return new

    def _is_gone(self) -> bool:
        """Whether the server takes nothing at all of this run."""
        try:
            found = asked(self.client.get_run, self.run_id)
        except Refused:
            return True
        return bool(found.info.lifecycle_stage == "deleted")

    def _reject(self, entry: Entry, reason: str) -> None:
        """Keep what the server refuses, for its report at the end and another try by hand."""
        what = entry.get("file", "").rpartition("/")[2] or next(iter(entry.get("values", [])), "")
        self.rejected.append(f"{entry['kind']} {what} ({reason})".replace("  ", " "))
        with contextlib.suppress(OSError), (self.journal.folder / "rejected.jsonl").open("a") as f:
            f.write(json.dumps({**entry, "reason": reason}) + "\n")


_DO: dict[str, Callable[[Delivery, Entry], None]] = {
    "about": Delivery._begin,
    "reopen": Delivery._reopen,
    "input": Delivery._input,
    "end": Delivery._end,
    "spoilt": lambda delivery, entry: delivery._reject(
        entry, "its line is spoilt, or of a newer mammo"
    ),
}


def identified(client: MlflowClient, identity: str) -> str:
    """The server's id of the run that a client gave `identity`; empty for none. May be Away."""
    places = [each.experiment_id for each in asked(client.search_experiments)]
    query = f"tags.`{IDENTITY}` = '{identity}'"
    found = asked(client.search_runs, places, query, max_results=1) if places else []
    return str(found[0].info.run_id) if found else ""
