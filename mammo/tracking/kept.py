"""Files that wait to be sent: beside a journal, or in memory while the disk is full."""

import contextlib
import logging
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOG = logging.getLogger("mammo")
IN_MEMORY = 64 << 20  # bytes of lines and files kept while the disk is full
LINK_FROM = 16 << 20  # bytes from which a file is linked, not copied: it is replaced, never changed


class Room:
    """Bytes of memory that a journal and its files share."""

    def __init__(self) -> None:
        self._used = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Whether there was room for so many bytes more."""
        with self._lock:
            if self._used + size > IN_MEMORY:
                return False
            self._used += size
            return True

    def give(self, size: int) -> None:
        with self._lock:
            self._used -= size


class Kept:
    """The files of one run in `folder`, each in a folder of its own: its name is the artifact's."""

    def __init__(self, folder: Path, room: Room) -> None:
        self._folder, self._room = folder, room
        self._contents: dict[str, bytes] = {}  # files in memory
        self._latest: dict[str, str] = {}  # artifact path: the file that was kept for it last

    def __contains__(self, name: str) -> bool:
        """Whether a file is in memory alone."""
        return name in self._contents

    def keep(self, source: Path | bytes, name: str) -> str:
        """Keep a file called `name`; returns its path below the folder, empty where it is lost."""
        name = f"{uuid.uuid4().hex[:16]}/{name}"
        place = self._folder / name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                place.write_bytes(source)
            else:
                _placed(source, place)
        except OSError as error:
            place.unlink(missing_ok=True)
            if isinstance(source, Path):
                if not os.access(source, os.R_OK):
                    raise
                with contextlib.suppress(OSError):
                    os.link(source, place)
                    return name
            if not self._keep_in_memory(name, source):
                LOG.warning("%s is lost to the tracking: %s", name, error.strerror)
                return ""
        return name

    def size(self, name: str) -> int:
        """Bytes of a file."""
        content = self._contents.get(name)
        return (self._folder / name).stat().st_size if content is None else len(content)

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        """Path of a file; FileNotFoundError where it is gone."""
        content = self._contents.get(name)
        if content is None:
            place = self._folder / name
            place.stat()
            yield place
            return
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch) / Path(name).name
            place.write_bytes(content)
            yield place

    def settle(self, name: str) -> bool:
        """Bring a file from memory to the disk; whether there was room."""
        content = self._contents.get(name)
        if content is None:
            return True
        place = self._folder / name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        except OSError:
            place.unlink(missing_ok=True)
            return False
        return True

    def forget(self, name: str) -> None:
        """A file need not be in memory any more."""
        self._room.give(len(self._contents.pop(name, b"")))

    def release(self, name: str) -> None:
        """A file is sent, or need not be."""
        self.forget(name)
        place = self._folder / name
        place.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            place.parent.rmdir()

    def replace(self, entry: Mapping[str, Any]) -> None:
        """Release what still waits for the same artifact path: the newest alone is sent."""
        path = artifact_path(entry)
        older, self._latest[path] = self._latest.get(path), entry["file"]
        if older:
            self.release(older)

    def _keep_in_memory(self, name: str, source: Path | bytes) -> bool:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if not self._room.take(size):
            return False
        self._contents[name] = source if isinstance(source, bytes) else source.read_bytes()
        return True


def artifact_path(entry: Mapping[str, Any]) -> str:
    """Where the file that an entry tells of belongs among the artifacts of its run."""
    name = Path(entry["file"]).name
    return f"{entry['folder']}/{name}" if entry["folder"] else name


def _placed(source: Path, place: Path) -> None:
    """Copy a file; a large one is linked where the file system can."""
    if source.stat().st_size >= LINK_FROM:
        with contextlib.suppress(OSError):
            os.link(source, place)
            return
    shutil.copyfile(source, place)
