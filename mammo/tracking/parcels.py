"""Files of a run on their way to the server: one that it does not take holds back no other."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow import MlflowClient

from mammo.tracking.answers import Away, Refused, asked
from mammo.tracking.journal import Entry, Journal
from mammo.tracking.kept import artifact_path
from mammo.tracking.pictures import encoded
from mammo.tracking.view import entries_in

LONGEST_S = 60.0  # between two tries of a file that was not taken


@dataclass
class Parcel:
    """A kept file that is to be sent."""

    entry: Entry
    number: int  # of its entry in the journal
    after: int  # place in the journal behind its entry
    tries: int = 0
    due: float = 0.0  # time.monotonic from which it is tried again
    since: float = 0.0  # time.monotonic when it was first not taken
    reason: str = ""  # why it was not taken

    @property
    def path(self) -> str:
        """Its artifact path; an image is a new one each time."""
        return str(self.entry.get("image") or artifact_path(self.entry))


class Parcels:
    """Files of one journal, at most one for an artifact path: a later one takes its place.

    They go in the order they came. One that is not taken steps aside and is tried again, later
    each time.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._queue: dict[str, Parcel] = {}  # by path, in their order
        self._aside: dict[str, Parcel] = {}

    def __len__(self) -> int:
        return len(self._queue) + len(self._aside)

    def __iter__(self) -> Iterator[Parcel]:
        yield from list(self._aside.values())
        yield from list(self._queue.values())

    def add(self, parcel: Parcel) -> None:
        for held in (self._queue, self._aside):
            if older := held.pop(parcel.path, None):
                self._journal.files.release(older.entry["file"])
        self._queue[parcel.path] = parcel

    def places(self, end: int) -> tuple[int, list[int]]:
        """Up to where files are sent, `end` for all, but for those that stepped aside."""
        first = next(iter(self._queue.values()), None)
        return first.after - 1 if first else end, [each.after for each in self._aside.values()]

    @property
    def stuck(self) -> list[Parcel]:
        """Those that were not taken when they were tried."""
        return list(self._aside.values())

    def next(self) -> Parcel | None:
        """The file to try now; None for none."""
        now = time.monotonic()
        due = (each for each in self._aside.values() if each.due <= now)
        return next(iter(self._queue.values()), None) or next(due, None)

    def send(self, parcel: Parcel, client: MlflowClient, run_id: str) -> str:
        """Send a file; why the server refuses it, empty where it took it. May be Away."""
        try:
            self._upload(parcel.entry, client, run_id)
            refused = ""
        except FileNotFoundError:
            refused = "the file is gone"
        except Refused as error:
            refused = str(error)
        except Away as away:
            self._step_aside(parcel, str(away))
            raise
        except OSError as error:  # the disk for temporary files is full, say
            self._step_aside(parcel, str(error))
            raise Away(str(error), reached=True) from error
        for held in (self._queue, self._aside):
            held.pop(parcel.path, None)
        return "" if refused and self._was_replaced(parcel) else refused

    def _upload(self, entry: Entry, client: MlflowClient, run_id: str) -> None:
        image, folder = entry.get("image", ""), entry["folder"] or None
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(self._journal.files.opened(entry["file"]))
            size, wanted = place.stat().st_size, entry.get("bytes")
            if size != (size if wanted is None else wanted):
                raise Refused(f"it has {size} bytes here, {wanted} when it was logged")
            for each in stack.enter_context(encoded(place, image)) if image else [place]:
                asked(client.log_artifact, run_id, str(each), folder)

    def _step_aside(self, parcel: Parcel, reason: str) -> None:
        self._queue.pop(parcel.path, None)
        self._aside.pop(parcel.path, None)
        self._aside[parcel.path] = parcel
        now = time.monotonic()
        parcel.since = parcel.since or now
        parcel.tries, parcel.reason = parcel.tries + 1, reason
        parcel.due = now + min(LONGEST_S, 0.5 * 2.0 ** min(parcel.tries, 10))

    def _was_replaced(self, parcel: Parcel) -> bool:
        """Whether the file is gone because a newer one was logged at its path."""
        file, newest = parcel.entry["file"], ""
        for entry in entries_in(self._journal.folder):
            if entry["kind"] == "file" and artifact_path(entry) == parcel.path:
                newest = entry["file"]
        with contextlib.suppress(FileNotFoundError):
            self._journal.files.size(file)
            return False
        return newest not in ("", file)
