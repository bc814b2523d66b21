"""What the server refuses of a run: kept for another try, and told in one line."""

import contextlib
import json
from pathlib import Path

from mammo.tracking.journal import Entry


class Rejections:
    """Refused entries of one run, in rejected.jsonl of its journal's `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "rejected.jsonl"
        self._first, self._count = "", 0  # of a deleted run every number is one

    def __len__(self) -> int:
        return self._count

    def add(self, entry: Entry, reason: str) -> None:
        what = entry.get("file", "").rpartition("/")[2] or next(iter(entry.get("values", [])), "")
        self.note(f"{entry['kind']} {what} ({reason})".replace("  ", " "))
        with contextlib.suppress(OSError), self.path.open("a") as file:
            file.write(json.dumps({**entry, "reason": reason}) + "\n")

    def note(self, what: str) -> None:
        """Count what cannot be kept apart."""
        self._first = self._first or what
        self._count += 1

    def line(self, run_id: str) -> str:
        more = f" and {self._count - 1} more" if self._count > 1 else ""
        return (
            f"the tracking server refused {self._first}{more} of run {run_id}; it is kept in "
            f"{self.path}"
        )
