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

from mammo.data.release import STRATA, Record
from mammo.errors import DataError


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


def fingerprint(salt: bytes, group_by: str = "patient") -> str:
    """Tells whether the groups of two datasets can be compared, without telling the salt.

    Hashes of patients and hashes of breasts never agree, so they count as of different salts.
    """
    own = salt if group_by == "patient" else salt + group_by.encode()
    return hashlib.sha256(own).hexdigest()[:12]


@dataclass(frozen=True)
class Names:
    """Salted hashes of the names in one data set; the same patient always gets the same one."""

    salt: bytes
    dataset: str  # patient 1 of one data set is not patient 1 of another

    def group(self, record: Record, group_by: str = "patient") -> str:
        """Whose images must stay together: of a patient, of a patient_laterality, or an image."""
        if group_by == "image":
            return self.image(record)
        if group_by == "patient_laterality":
            return self._hashed("breast", record.patient, record.laterality)
        return self.patient(record.patient)

    def groups(self, records: Sequence[Record], group_by: str = "patient") -> pd.DataFrame:
        """Columns group_id, label and those of `STRATA` of `records`."""
        sides = sum(record.laterality != "" for record in records)
        if group_by == "patient_laterality" and sides < len(records):
            raise DataError(
                f"group_by patient_laterality: {len(records) - sides} of {len(records)} images "
                "have no laterality in the release; use group_by patient"
            )
        rows = [
            (self.group(record, group_by), *(getattr(record, name) for name in STRATA))
            for record in records
        ]
        return pd.DataFrame(rows, columns=["group_id", *STRATA])

    def patient(self, original: str) -> str:
        return self._hashed("patient", original)

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
