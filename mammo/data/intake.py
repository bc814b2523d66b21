"""Takes the images of a release into a dataset, chunk by chunk, on one process or several."""

import hmac
import json
import logging
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mammo.data.disclosure import stored_age, stored_grade, stored_maker
from mammo.data.identity import Names
from mammo.data.journal import Journal, Outcome
from mammo.data.manifest import make_manifest
from mammo.data.prepare import LOOK, LeftOut, Prepared, Recipe, Refused, prepare
from mammo.data.progress import Progress
from mammo.data.release import Record
from mammo.data.slots import Slots
from mammo.data.workers import cores, spread
from mammo.errors import DataError

LOG = logging.getLogger("mammo")
_CHUNK = 16  # records; what a kill loses on each process
_BATCH = 4096  # rows that wait as dictionaries to become a table, which is ten times smaller


@dataclass(frozen=True)
class Chunk:
    """Some records on end: what one process prepares at a time."""

    number: int
    first: int  # number of its first record in the release
    records: Sequence[Record]


@dataclass
class Intake:
    """What became of the records; `refused` holds original names and stays private."""

    frame: pd.DataFrame = field(default_factory=pd.DataFrame)  # manifest rows, not yet split
    kept: list[Record] = field(default_factory=list)  # the record of each row
    numbers: list[int] = field(default_factory=list)  # and its place in the release
    refused: list[tuple[str, str]] = field(default_factory=list)  # (file, reason)
    left_out: Counter[str] = field(default_factory=Counter)  # reason -> images
    walls: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    peak: float = 0.0  # brightest value of all, in [0, 1]

    def add(self, records: Sequence[Record], outcome: Outcome) -> None:
        """Count what became of a chunk of `records`."""
        for (number, row), wall in zip(outcome.rows, outcome.walls, strict=True):
            self.kept.append(records[number])
            self.numbers.append(number)
            self.walls[row.get("laterality", ""), row.get("view", ""), *wall] += 1
        for number, reason in outcome.refused:
            self.refused.append((str(records[number].paths[0]), reason))
        self.left_out.update(reason for _, reason in outcome.left_out)
        self.peak = max(self.peak, outcome.peak)

    @property
    def disagreements(self) -> int:
        """Images whose chest wall is not where header or laterality have it."""
        return sum(count for (*_, told, seen), count in self.walls.items() if told and told != seen)


@dataclass(frozen=True)
class Preparation:
    """Prepares a chunk and writes its pixels and its journal; all that a process has to know."""

    slots: Slots
    journal: Journal
    recipe: Recipe
    names: Names
    label_kind: str
    group_by: str = "patient"
    strict: bool = True  # a chunk ends at its first refusal, and is not in the journal then

    @property
    def looks(self) -> Slots | None:
        """Where the looks of the recipe lie, by record; they live and die with the journal."""
        if not self.recipe.look:
            return None
        return Slots(self.journal.folder / "looks", (1, *LOOK), self.recipe.dtype, self.slots.count)

    def open(self, datasets: Path) -> None:
        """Find what an earlier process has done; DataError where the rest would not fit."""
        self.journal.open(self.slots.folder, datasets)
        if self.looks:
            self.looks.folder.mkdir(exist_ok=True)
        if self.slots.folder.is_dir():
            for each in filter(None, (self.slots, self.looks)):
                each.check_room()

    def discard(self) -> None:
        """Remove pixels and journal."""
        shutil.rmtree(self.slots.folder, ignore_errors=True)
        self.journal.clear()

    def __call__(self, chunk: Chunk) -> tuple[int, Outcome]:
        """Number of `chunk` and what became of it."""
        outcome = Outcome()
        for number, record in enumerate(chunk.records, start=chunk.first):
            self.journal.count_decoded()
            result = prepare(record, self.recipe)
            if isinstance(result, Refused):
                outcome.refused.append((number, result.reason))
                if self.strict:
                    return chunk.number, outcome
            elif isinstance(result, LeftOut):
                outcome.left_out.append((number, result.reason))
            else:
                hashes = self.slots.put(number, result.image, result.mask)
                if self.looks and result.look is not None:
                    self.looks.put(number, result.look, None)
                outcome.rows.append((number, {**self._row(record, result), **hashes}))
                outcome.walls.append((result.expected_wall, result.wall))
                outcome.peak = max(outcome.peak, result.peak)
        for each in filter(None, (self.slots, self.looks)):
            each.flush(number for number, _ in outcome.rows)
        self.journal.write(chunk.number, outcome)
        return chunk.number, outcome

    def _row(self, record: Record, result: Prepared) -> dict[str, Any]:
        """Manifest row; what the release leaves open is taken from the file's header."""
        header = result.header
        return {
            **record.extra,
            "dataset": self.names.dataset,
            "group_id": self.names.group(record, self.group_by),
            "exam_id": self.names.exam(record),
            "image_id": self.names.image(record),
            "laterality": record.laterality or header.laterality,
            "view": record.view or header.view,
            "label": record.label,
            "label_kind": self.label_kind,
            "birads": stored_grade(record.birads),
            "density": stored_grade(record.density),
            "age": stored_age(header.age if math.isnan(record.age) else record.age),
            "vendor": stored_maker(record.vendor or header.vendor),
            "subset": record.subset,
            "pixel_mm": result.pixel_mm,
            **result.file_columns(),
        }


def preparation_of(
    folder: Path,
    records: Sequence[Record],
    recipe: Recipe,
    names: Names,
    *,
    label_kind: str,
    group_by: str = "patient",
    strict: bool = True,
) -> Preparation:
    """How `records` are prepared in `folder`, where `dataset.partial` and `chunks` come to lie."""
    again = len(records) - len({record.image for record in records})
    if again:  # told now, and not after an hour of decoding
        raise DataError(
            f"{again} images of the release have the name of another one; give each image one row"
        )
    shape = (len(records[0].paths), *recipe.size)
    slots = Slots(folder / "dataset.partial", shape, recipe.dtype, len(records))
    done = json.dumps(asdict(recipe), sort_keys=True, default=sorted)  # of a set, its order
    told = repr((done, shape, chunk_size(len(records)), names.dataset, label_kind, group_by))
    plan = hmac.new(names.salt, told.encode(), "sha256")  # keyed: original names are in it
    for record in records:
        plan.update(repr(record).encode(errors="surrogateescape"))
    journal = Journal(folder / "chunks", plan.hexdigest())
    return Preparation(slots, journal, recipe, names, label_kind, group_by, strict)


def take_in(records: Sequence[Record], preparation: Preparation, *, workers: int = 1) -> Intake:
    """Prepare `records` on `workers` processes (0: one a core), those in the journal excepted.

    `strict` ends it at the first record that is refused, whatever the number of processes.
    """
    intake = Intake()
    tables: list[pd.DataFrame] = []
    rows: list[dict[str, Any]] = []
    for outcome in _outcomes(records, preparation, workers or cores()):
        rows += [row for _, row in outcome.rows]
        intake.add(records, outcome)
        if preparation.strict and outcome.refused:
            return intake
        if len(rows) >= _BATCH:
            tables.append(make_manifest(rows))
            rows = []
    tables.append(make_manifest(rows))
    intake.frame = pd.concat([each for each in tables if len(each)] or tables, ignore_index=True)
    if intake.numbers:
        masked = (intake.frame["mask_sha256"] != "").tolist()
        places = preparation.slots.squeeze(intake.numbers, masked, preparation.journal.squeezed)
        intake.frame[["shard", "index"]] = places
    return intake


def chunk_size(count: int) -> int:
    """Records of a chunk where there are `count`: few enough that all processes have work.

    It must not depend on the number of processes, which may change when a run goes on.
    """
    return max(1, min(_CHUNK, count // 64))


def prepare_part(
    records: Sequence[Record], preparation: Preparation, part: int, parts: int
) -> None:
    """Prepare a share of `records`, those in the journal excepted, on all cores of this process.

    A share is a range of chunks, so that processes on several machines write to places far apart.
    `strict` ends it at the first record that is refused, which who gathers will find again.
    """
    chunks = _chunks(records)
    mine = chunks[part * len(chunks) // parts : (part + 1) * len(chunks) // parts]
    todo = [each for each in mine if preparation.journal.read(each.number) is None]
    done = sum(len(each.records) for each in mine) - sum(len(each.records) for each in todo)
    with (
        Progress("preprocess", sum(len(each.records) for each in mine), done=done) as progress,
        closing(spread(preparation, todo, workers=min(cores(), len(todo)))) as made,
    ):
        for _, outcome in made:
            progress.advance(len(outcome))
            if preparation.strict and outcome.refused:
                return


def _chunks(records: Sequence[Record]) -> list[Chunk]:
    """The records on end, in the same chunks for every process."""
    size = chunk_size(len(records))
    starts = range(0, len(records), size)
    return [Chunk(n, first, records[first : first + size]) for n, first in enumerate(starts)]


def _outcomes(
    records: Sequence[Record], preparation: Preparation, workers: int
) -> Iterator[Outcome]:
    """What became of each chunk in their order, from the journal where it is there."""
    journal, chunks = preparation.journal, _chunks(records)
    held = {each.number: len(found) for each in chunks if (found := journal.read(each.number))}
    if held:
        done = sum(held.values())
        LOG.info("preprocess: %d of %d images are ready from before", done, len(records))
    todo = (chunk for chunk in chunks if chunk.number not in held)
    fresh: dict[int, Outcome] = {}
    with (
        Progress("preprocess", len(records), done=sum(held.values())) as progress,
        closing(spread(preparation, todo, workers=min(workers, len(chunks) - len(held)))) as made,
    ):
        for chunk in chunks:
            while chunk.number not in held and chunk.number not in fresh:
                number, outcome = next(made)
                fresh[number] = outcome
                progress.advance(len(outcome))
            ready = fresh.pop(chunk.number, None) or journal.read(chunk.number)
            assert ready is not None
            yield ready
