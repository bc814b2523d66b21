"""Patients, exams and images under salted hashes; their names stay in work/private."""

import csv
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mammo.data.release import Record


def load_salt(work: Path) -> bytes:
    """The secret salt of this work folder, made on first use; 32 bytes."""
    path = private_folder(work) / "salt"
    if not path.exists():
        fresh = path.with_name(f"salt.{secrets.token_hex(4)}")
        _write(fresh, secrets.token_bytes(32))
        with suppress(FileExistsError):  # another process was first: its salt counts
            path.hardlink_to(fresh)
        fresh.unlink()
    return path.read_bytes()


def fingerprint(salt: bytes) -> str:
    """Tells whether two datasets were hashed with the same salt, without telling the salt."""
    return hashlib.sha256(salt).hexdigest()[:12]


@dataclass(frozen=True)
class Names:
    """Salted hashes of the names in one data set; the same patient always gets the same one."""

    salt: bytes
    dataset: str  # patient 1 of one data set is not patient 1 of another

    def group(self, record: Record, group_by: str = "patient") -> str:
        """Whose images must stay together: the patient's, or by `group_by` image each alone."""
        return (
            self._hashed("patient", record.patient) if group_by == "patient" else self.image(record)
        )

    def groups(self, records: Sequence[Record], group_by: str = "patient") -> pd.DataFrame:
        """Columns group_id and label of `records`."""
        rows = [(self.group(record, group_by), record.label) for record in records]
        return pd.DataFrame(rows, columns=["group_id", "label"])

    def exam(self, record: Record) -> str:
        return self._hashed("exam", record.patient, record.exam) if record.exam else ""

    def image(self, record: Record) -> str:
        return self._hashed("image", record.image)

    def _hashed(self, *parts: str) -> str:
        text = "\x1f".join((self.dataset, *parts))
        return hmac.new(self.salt, text.encode(), hashlib.sha256).hexdigest()[:16]


def private_folder(work: Path) -> Path:
    """The folder for what must keep original names, open to its owner alone."""
    folder = work / "private"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def write_private(
    work: Path, name: str, columns: Sequence[str], rows: Iterable[Sequence[str]]
) -> Path:
    """Write a CSV into the private folder, readable by its owner alone; returns its path."""
    path = private_folder(work) / name
    partial = path.with_name(f"{name}.{secrets.token_hex(4)}")
    _write(partial, b"")
    with partial.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(rows)
    partial.replace(path)
    return path


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
