"""Makes the dataset of a release: takes its images in, splits the patients, checks and seals."""

import errno
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from mammo.data.checks import FATAL, Finding, check_rows, one_class
from mammo.data.dataset import Dataset
from mammo.data.duplicates import grouped_by_scene
from mammo.data.foreign import mark_synthetic
from mammo.data.identity import write_private
from mammo.data.intake import Intake, Preparation, take_in
from mammo.data.partition import Divided
from mammo.data.release import Record, Release
from mammo.data.writer import digest_of, seal
from mammo.errors import DataError
from mammo.run import Run

ALL_ALIKE = (
    "image, with those of equal pixels (all pictures look alike, so near-duplicates cannot be told "
    "from others, and may be torn between splits; name the patients)"
)
Rejected = list[tuple[str, str]]  # (original name, reason)
_REASONS = 4  # that an error counts; the tables have them all


@dataclass(frozen=True)
class Made:
    """A sealed dataset, and what its making has shown."""

    data: Dataset
    intake: Intake
    divided: Divided
    findings: list[Finding]
    rejected: Rejected
    images_per_second: float  # of this run
    images_decoded: int  # by this run and those it continues


def make(
    tracked: Run,
    release: Release,
    records: Sequence[Record],
    preparation: Preparation,
    about: Mapping[str, Any],
    *,
    divide: Callable[[pd.DataFrame, list[str]], Divided],
    synthetic_origin: str = "",
    warm_up: Callable[[pd.DataFrame], pd.Series] | None = None,
    workers: int = 1,
) -> Made:
    """Prepare `records` where it has not been done, and seal them as a dataset in the work folder.

    Looks of the preparation group near duplicates, `divide` gives each row its split, `warm_up`
    marks rows.
    A mistake of the user leaves nothing behind; after any other end the same run goes on.
    """
    started, journal, slots = time.monotonic(), preparation.journal, preparation.slots
    looks = preparation.looks
    datasets = tracked.work / "datasets"
    try:
        preparation.open(datasets)
        before = journal.decoded
        intake = take_in(records, preparation, workers=workers)
        rate = (journal.decoded - before) / (time.monotonic() - started)
        rejected = release.rejected + intake.refused
        if intake.refused and (preparation.strict or not intake.kept):
            raise unusable(tracked, rejected)
        frame = intake.frame
        if synthetic_origin:
            mark_synthetic(frame, synthetic_origin)
        elif looks:
            frame["group_id"], told = grouped_by_scene(
                frame["group_id"], lambda row: looks.read(intake.numbers[row])[0]
            )
            if not told:
                release.notes["group"] = ALL_ALIKE
        divided = _divided(frame, intake, divide, clustered=looks is not None)
        frame[["split", "fold"]] = divided.rows
        if warm_up:
            frame["warmup"] = warm_up(frame)
        findings = check_rows(frame, release.classes.names)
        _refuse_fatal(findings)
        journal.sealing(digest_of(frame, about))
        data = seal(slots.folder, datasets, frame, release.classes, about)
    except (DataError, OSError) as error:  # the user changes something: another run
        preparation.discard()
        raise explained(error, tracked.work) from None
    return Made(data, intake, divided, findings, rejected, rate, journal.decoded)


def _divided(
    frame: pd.DataFrame,
    intake: Intake,
    divide: Callable[[pd.DataFrame, list[str]], Divided],
    *,
    clustered: bool,
) -> Divided:
    try:
        return divide(frame, [record.split for record in intake.kept])
    except DataError as error:
        if not clustered:
            raise
        raise DataError(
            f"{error} (no patients are named, so pictures alike count as one patient: "
            f"{len(frame)} images are {frame['group_id'].nunique()}; name the patients)"
        ) from None


def refuse_one_class(records: Sequence[Record]) -> None:
    """Refuse records of a single class, before any of them is decoded."""
    if len({record.label for record in records}) == 1:
        _refuse_fatal([one_class(records[0].label, len(records))])


def unusable(tracked: Run, rejected: Rejected) -> DataError:
    """The error for images that cannot be used; their names go to the private folder alone."""
    path = list_privately(tracked, rejected)
    if len(rejected) == 1:
        return DataError(
            f"an image cannot be used: {rejected[0][1]}; its name is in {path}; "
            "mend or remove it, or leave such images out with --strict false"
        )
    return DataError(
        f"{len(rejected)} images cannot be used ({_counted(rejected)}); their names are in {path}; "
        "mend or remove them, or leave such images out with --strict false"
    )


def none_left(release: Release, task: str, folder: Path) -> DataError:
    """The error for a release without an image for `task`: what became of those it has."""
    counted = _counted(release.rejected, release.left_out)
    return DataError(f"no images for task {task!r} in {folder}{counted and f': {counted}'}")


def _counted(rejected: Rejected, left_out: Mapping[str, int] = MappingProxyType({})) -> str:
    """How many images there are for each reason, the commonest first; names nobody."""
    counts = Counter(reason for _, reason in rejected)
    counts.update(left_out)
    told = [f"{count} x {reason}" for reason, count in counts.most_common(_REASONS)]
    return ", ".join([*told, *(["..."] if len(counts) > _REASONS else [])])


def list_privately(tracked: Run, rejected: Rejected) -> Path:
    """Write names and reasons to the private folder; returns the file."""
    return write_private(
        tracked.work, f"rejected-{tracked.id}.csv", ("file", "reason"), sorted(rejected)
    )


def explained(error: DataError | OSError, work: Path) -> Exception:
    """A full disk as one line for the user; any other error as it is."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(
            f"the disk of {work} is full; free space there or choose another --work_dir "
            "(what was half written has been removed)"
        )
    return error


def _refuse_fatal(findings: list[Finding]) -> None:
    fatal = [finding for finding in findings if finding.severity == FATAL]
    if fatal:
        raise DataError(f"{fatal[0].name}: {fatal[0].text}")
