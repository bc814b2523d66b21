"""What became of each chunk of a release, in a small file of its own: a kill loses little."""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mammo.data.manifest import COLUMNS


@dataclass
class Outcome:
    """What became of a chunk's records, each by its number in the release; holds no names."""

    rows: list[tuple[int, dict[str, Any]]] = field(default_factory=list)  # of the manifest
    refused: list[tuple[int, str]] = field(default_factory=list)  # (record, reason)
    left_out: list[tuple[int, str]] = field(default_factory=list)
    walls: list[tuple[str, str]] = field(default_factory=list)  # of each row: expected, seen
    peak: float = 0.0  # brightest value, in [0, 1]

    def __len__(self) -> int:
        return len(self.rows) + len(self.refused) + len(self.left_out)


@dataclass(frozen=True)
class Journal:
    """Outcomes by chunk in `folder`; `plan` is a digest of all that they depend on."""

    folder: Path
    plan: str

    def open(self, pixels: Path, datasets: Path) -> None:
        """Keep what an earlier process did by this plan, and remove what another plan left.

        `pixels` is the folder of the unfinished dataset. Where it has gone, it was sealed: its
        outcomes count as long as that dataset is in `datasets`.
        """
        sealed = self._text("sealed")
        there = pixels.is_dir() or (sealed and (datasets / sealed / "dataset.json").is_file())
        if self._text("plan") != self.plan or not there:
            self.clear()
            shutil.rmtree(pixels, ignore_errors=True)
            pixels.mkdir(parents=True)
            self.folder.mkdir(parents=True)
            self._write("plan", self.plan)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, chunk: int, outcome: Outcome) -> None:
        """Record what became of a chunk; its pixels are on the disk already."""
        content = asdict(outcome)
        content["rows"] = [(number, _filled(row)) for number, row in outcome.rows]
        content["plan"] = self.plan
        # a number of numpy's as Python's own
        self._write(f"{chunk:06d}.json", json.dumps(content, default=lambda value: value.item()))

    def read(self, chunk: int) -> Outcome | None:
        """What became of a chunk; None where it has still to be prepared."""
        try:
            content = json.loads(self._text(f"{chunk:06d}.json"))
            if content.pop("plan") != self.plan:
                return None
            return Outcome(**content)
        except (ValueError, KeyError, TypeError):
            return None

    def sealing(self, digest: str) -> None:
        """Say under which digest the dataset is about to get its final name."""
        self._write("sealed", digest)

    @property
    def sealed(self) -> str:
        """Digest under which the dataset is sealed, or about to be; empty before."""
        return self._text("sealed")

    @property
    def squeezed(self) -> Path:
        """Appears when the pixels lie without gaps (Slots.squeeze)."""
        return self.folder / "squeezed"

    def count_decoded(self) -> None:
        """Note that a record is about to be decoded; one byte each, by any process."""
        with (self.folder / "decoded").open("ab") as file:
            file.write(b".")

    @property
    def decoded(self) -> int:
        """Records decoded so far, those included that a killed process had begun."""
        path = self.folder / "decoded"
        return path.stat().st_size if path.exists() else 0

    def _text(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def _write(self, name: str, text: str) -> None:
        """Write a file that is whole or not there."""
        partial = self.folder / f"{name}.{os.getpid()}"
        partial.write_text(text)
        partial.replace(self.folder / name)


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    """Cells of `row` that differ from their column's empty value, which a manifest fills in."""
    return {name: value for name, value in row.items() if not _is_empty(name, value)}


def _is_empty(column: str, value: Any) -> bool:
    if column not in COLUMNS:
        return False
    return bool(value == COLUMNS[column][1] or value != value)  # nan differs from itself
