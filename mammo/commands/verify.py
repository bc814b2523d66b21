"""`mammo verify FILE ...`: whether files are synthetic images of mammo, and still as drawn."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mammo.commands import call
from mammo.errors import DataError, TrackingError

if TYPE_CHECKING:
    from mammo.data.provenance import Record
    from mammo.tracking import Tracking

VERIFIED, ALTERED, UNKNOWN = "verified", "altered", "no provenance"
BOOK = ("manifest.parquet", "dataset.json")  # files of a dataset that say what an image is
CODES = {VERIFIED: 0, ALTERED: 1, UNKNOWN: 2}


def command(arguments: Sequence[str]) -> int:
    return call("verify", run, arguments)


def run(*files: str, json: bool = False) -> int:
    """Say in a line for each of FILES whether it is a synthetic image, whose, and as it was drawn.

    Reads the provenance in PNG, DICOM, NIfTI and .npy files that mammo exported, compares the hash
    of the pixels, and what is said with the dataset where it lies in the work folder or on the
    tracking server. --json true prints an object for each file instead. The exit code is 0 when all
    are verified, 1 when one was altered, 2 when one has no provenance or cannot be read.
    """
    books = Books()
    answers = [judge(file, books) for file in files]
    for answer in answers:
        print(_as_json(answer) if json else answer.line, flush=True)
    return max(CODES[answer.verdict] for answer in answers)


@dataclass(frozen=True)
class Answer:
    """What is known of a file."""

    file: str
    verdict: str  # of CODES
    synthetic: bool
    line: str
    run_id: str = ""
    dataset: str = ""
    index: int = -1
    tracking: str = ""  # what the books say of the run: see Books.say


class Books:
    """Where datasets are written down: the work folder, and the tracking server if it answers."""

    def say(self, record: "Record") -> tuple[str, str]:
        """In words whether the run is known, and what contradicts the record, if anything does."""
        from mammo.driver import work_folder

        folder = work_folder("") / "datasets" / record["dataset"]
        run_id = record["run_id"]
        if not run_id:
            return "it was read from elsewhere, and no run of sampling is named", ""
        if self._tracking is None:
            known = "the tracking server was not asked: none answers"
        else:
            try:
                found = self._tracking.get(run_id)
            except TrackingError:
                known = "the tracking server does not know that run"
            else:
                known = "the tracking server knows that run"
                if found.data.tags.get("mammo.digest", record["dataset"]) != record["dataset"]:
                    return known, "the run made another dataset"
        if all((folder / name).is_file() for name in BOOK):
            return known, _contradiction(folder, record)
        paths = [f"dataset/{name}" for name in BOOK]
        tracking = self._tracking
        if tracking is None or not all(tracking.has_artifact(run_id, each) for each in paths):
            return known, ""
        with tempfile.TemporaryDirectory() as scratch:
            for name, path in zip(BOOK, paths, strict=True):
                tracking.download(run_id, path, Path(scratch) / name)
            return known, _contradiction(Path(scratch), record)

    @cached_property
    def _tracking(self) -> "Tracking | None":
        from mammo.tracking import connected

        return connected()


def judge(file: str, books: Books) -> Answer:
    """Read the provenance of `file` and compare it with its pixels and with the books."""
    from mammo.data.pixels import is_dicom
    from mammo.data.provenance import agrees, read

    try:
        found = read(Path(file).expanduser())
    except DataError as error:
        return Answer(file, UNKNOWN, False, f"{file}: cannot be verified: {error}")
    record = found.record
    if record is None and is_dicom(Path(file).expanduser()) and found.marked:
        line = f"{file}: its DICOM attributes say that it is synthetic; it has no record of mammo"
        return Answer(file, UNKNOWN, True, line)
    if record is None:
        line = f"{file}: no provenance: nothing in it says whether it is real or synthetic"
        return Answer(file, UNKNOWN, False, line)
    known, wrong = books.say(record)
    if not agrees(record, found.pixels):
        wrong = "its pixels were altered since"
    elif not found.marked:
        wrong = "its DICOM attributes no longer say that it is synthetic"
    elif not found.plain:
        wrong = "its DICOM attributes give its pixels other greys"
    shown = [] if record["planes"] == ["image 1"] else [f"({' and '.join(record['planes'])})"]
    maker = f"run {record['run_id']}" if record["run_id"] else record["generator_run_id"]
    words = [
        f"{file}: synthetic, {record['label']}, by {maker}:",
        f"image {record['index']} of dataset {record['dataset']}",
        *shown,
    ]
    state = f"but {wrong}" if wrong else "its pixels are as they were drawn"
    return Answer(
        file,
        ALTERED if wrong else VERIFIED,
        True,
        f"{' '.join(words)}; {state}; {known}",
        record["run_id"],
        record["dataset"],
        record["index"],
        known,
    )


def _contradiction(folder: Path, record: "Record") -> str:
    """What of `record` the dataset's BOOK in `folder` says otherwise; empty when nothing."""
    from mammo.data.provenance import TOLD, generator_digest

    rows, about = pd.read_parquet(folder / BOOK[0]), json.loads((folder / BOOK[1]).read_text())
    index = record["index"]
    if not 0 <= index < len(rows):
        return f"that dataset has {len(rows)} images"
    row = rows.iloc[index]
    pairs = {
        "image_id": row["image_id"],
        "label": row["label"],
        "seed": int(row["sample_seed"]),
        "generator_run_id": row["generator_run_id"],
        "image_sha256": row["sha256"],
        "mask_sha256": row["mask_sha256"],
        "channels": about["shape"][0],
        "conditions": {name: row[name] for name in TOLD if row[name]},
        "sampling": {k: v for k, v in about.get("sampling", {}).items() if k != "run_id"},
        "generator_digest": generator_digest(about, row["generator_run_id"]),
    }
    told = [name for name, value in pairs.items() if record.get(name) != value]
    return f"the dataset has another {told[0]} at that place" if told else ""


def _as_json(answer: Answer) -> Any:
    return json.dumps(asdict(answer), sort_keys=True)
