"""What a run logs, on disk until the server has it: a line an entry, and the files beside them."""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import threading
import uuid
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mammo.tracking.kept import IN_MEMORY, Kept, Room

LOG = logging.getLogger("mammo")
CHUNK = 1 << 20  # bytes of lines read in one go
_encode = json.JSONEncoder(separators=(",", ":")).encode

Entry = dict[str, Any]


class Busy(Exception):
    """Another process, which lives, writes this journal."""


class Journal:
    """Append-only entries of one run in `folder`; its first line says `about` which run it is.

    A line is whole or not there: what a killed process left of its last line is cut off, and so is
    what a full disk let in of one. Until there is room again entries are kept in memory.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.about: Entry = dict(about or {})
        self.end = 0  # bytes of whole lines in the file
        self.lines = 0  # entries ever taken in, those in memory too
        self.dropped = 0  # entries that found room neither on the disk nor in memory
        self.retired = False  # all is sent, and the folder gone
        self._descriptor = -1
        self._room = Room()
        self.files = Kept(folder / "files", self._room)
        self._held: deque[tuple[bytes, str]] = deque()  # lines in memory, with their file's name
        self._lent = 0  # lines in memory that are being sent just now
        self._unsynced = False
        self._lock = threading.Lock()
        self._open()
        self.old = self.asked = self.lines > 0  # begun, and perhaps created, by another process
        if self.old:
            self.about = self.read(0)[0][0]
        elif about:
            self.append(about)

    def append(self, entry: Mapping[str, Any], *, file: str = "") -> bool:
        """Take in an entry, with the name of the kept file it tells of; False once retired."""
        line = _encode(entry).encode() + b"\n"
        with self._lock:
            if self.retired:
                return False
            self.lines += 1
            if self._held or file in self.files or not self._write(line):
                self._hold(line, file)
                self._settle()
            elif file and not entry.get("image"):
                self.files.replace(entry)
            return True

    def read(self, place: int) -> list[tuple[Entry, int]]:
        """Entries of the file from byte `place` on, each with the place after it."""
        found: list[tuple[Entry, int]] = []
        size = CHUNK
        while place < self.end and not found:
            with self._lock:  # a closed descriptor may be another file's by now
                if self._descriptor < 0:
                    return []
                data = os.pread(self._descriptor, min(size, self.end - place), place)
            for line in data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]:
                place += len(line) + 1
                found.append((decoded(line), place))
            size *= 2
        return found

    def lend(self, place: int) -> list[Entry]:
        """Entries in memory, where the file is read to its end at `place`; `give_back` must follow.

        Until then none of them goes to the disk.
        """
        with self._lock:
            self._settle()
            if place < self.end:
                return []
            self._lent = len(self._held)
            return [json.loads(self._held[number][0]) for number in range(self._lent)]

    def give_back(self, done: int) -> None:
        """Forget the first `done` of the entries that were lent."""
        with self._lock:
            for _ in range(done):
                self._room.give(len(self._held.popleft()[0]))
            self._lent = 0

    def keep(self, source: Path | bytes, name: str) -> str:
        """Keep a file called `name` for sending; returns its path below files/, empty if lost."""
        kept = self.files.keep(source, name)
        self.dropped += not kept
        return kept

    def synchronize(self) -> None:
        """Have the system write the lines to the disk itself; nobody waits for it to log."""
        with self._lock:
            if not self._unsynced or self._descriptor < 0:
                return
            self._unsynced = False
            own = os.dup(self._descriptor)
        try:
            with contextlib.suppress(OSError):
                os.fsync(own)
        finally:
            os.close(own)

    def retire(self, lines: int) -> bool:
        """Delete all of it, where no entry came after the first `lines`."""
        with self._lock:
            if self.lines != lines:
                return False
            self.retired = True
            shutil.rmtree(self.folder, ignore_errors=True)
            self._close()
            return True

    def set_aside(self) -> Path:
        """Move all of it beside the spool, from where nobody sends it, and close it."""
        with self._lock:
            self._settle()
            self.retired = True
            place = self.folder.parents[1] / "taken" / self.folder.name
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                place = place.with_name(f"{place.name}-{uuid.uuid4().hex[:8]}")
            self.folder.rename(place)
            self._close()
            return place

    @property
    def lost(self) -> int:
        """Entries that would be lost if this process ended now."""
        with self._lock:
            self._settle()
            return self.dropped + len(self._held)

    def close(self) -> None:
        """Leave what is there to another process."""
        with self._lock:
            self._settle()
            self.retired = True
            self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        """Lock the file and cut off a torn last line; a full disk is met later, by `_write`."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self.folder / "journal.jsonl", flags, 0o600)
        if self._descriptor < 0:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._close()
            raise Busy(str(self.folder)) from None
        if not self._is_there():  # deleted by another process between opening and locking it
            self._close()
            self._open()
            return
        place = 0
        while block := os.pread(self._descriptor, CHUNK, place):
            self.lines += block.count(b"\n")
            last = block.rfind(b"\n") + 1
            self.end = place + last if last else self.end
            place += len(block)
        os.ftruncate(self._descriptor, self.end)

    def _is_there(self) -> bool:
        """Whether the open file is the one that has its name."""
        try:
            named = (self.folder / "journal.jsonl").stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(self._descriptor), named)

    def _write(self, line: bytes) -> bool:
        """Whether the whole line is in the file; nothing of it stays there else."""
        if self._descriptor < 0:
            self._open()
            if self._descriptor < 0:
                return False
        try:
            written = os.write(self._descriptor, line)
        except OSError:
            return False
        # asked of the file: a signal may have come between a line and its being counted
        size = os.fstat(self._descriptor).st_size
        if written < len(line):
            os.ftruncate(self._descriptor, size - written)
            return False
        self.end = size
        self._unsynced = True
        return True

    def _hold(self, line: bytes, file: str) -> None:
        """Keep a line in memory, or count what is lost."""
        if not self._held:
            LOG.warning(
                "the disk of %s is full: up to %d MB of what is logged are kept in memory until "
                "there is room",
                *(self.folder, IN_MEMORY >> 20),
            )
        if not self._room.take(len(line)):
            self.dropped += 1
            self.lines -= 1
            self.files.forget(file)
            return
        self._held.append((line, file))

    def _settle(self) -> None:
        """Bring what is in memory to the disk, as far as there is room."""
        while self._held and not self._lent:
            line, file = self._held[0]
            if not (self.files.settle(file) and self._write(line)):
                return
            self._held.popleft()
            self._room.give(len(line))
            self.files.forget(file)


def decoded(line: bytes) -> Entry:
    """An entry; one that a failing disk has spoilt says so and tells nothing else."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {"kind": "spoilt"}
    whole = isinstance(entry, dict) and "kind" in entry
    return entry if whole else {"kind": "spoilt"}
