"""Writes the images of a release into a dataset, each with its manifest row."""

import logging
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mammo.data.identity import Names
from mammo.data.prepare import Prepared, Recipe, Refused, prepare_all
from mammo.data.release import Record
from mammo.data.writer import DatasetWriter

LOG = logging.getLogger("mammo")
_REPORT_S = 20.0  # seconds between two lines of progress


@dataclass
class Intake:
    """What became of the records; `refused` holds original names and stays private."""

    kept: list[Record] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)  # (file, reason)
    walls: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    peak: float = 0.0  # brightest value of all, in [0, 1]

    @property
    def disagreements(self) -> int:
        """Images whose chest wall is not where header or laterality have it."""
        return sum(count for (*_, told, seen), count in self.walls.items() if told and told != seen)


def take_in(
    writer: DatasetWriter,
    records: Sequence[Record],
    recipe: Recipe,
    names: Names,
    *,
    group_by: str = "patient",
    strict: bool = True,
    workers: int = 1,
) -> Intake:
    """Prepare `records` in order and add them to `writer`; `strict` ends at the first refusal."""
    intake = Intake()
    told = time.monotonic()
    done = prepare_all(records, recipe, workers=workers or os.cpu_count() or 1)
    for record, result in zip(records, done, strict=True):
        if isinstance(result, Refused):
            intake.refused.append((str(record.paths[0]), result.reason))
            if strict:
                break
            continue
        row = _row(record, result, names, writer)
        row["group_id"] = names.group(record, group_by)
        writer.add(result.image, row, result.mask)
        intake.kept.append(record)
        side, view = row["laterality"], row["view"]
        intake.walls[side, view, result.expected_wall, result.wall] += 1
        intake.peak = max(intake.peak, result.peak)
        if time.monotonic() - told > _REPORT_S:
            told = time.monotonic()
            LOG.info("preprocess: %d of %d images", len(intake.kept), len(records))
    return intake


def _row(record: Record, result: Prepared, names: Names, writer: DatasetWriter) -> dict[str, Any]:
    """Manifest row; what the release leaves open is taken from the file's header."""
    header = result.header
    return {
        **record.extra,
        "dataset": names.dataset,
        "exam_id": names.exam(record),
        "image_id": names.image(record),
        "laterality": record.laterality or header.laterality,
        "view": record.view or header.view,
        "label": record.label,
        "label_kind": writer.classes.label_kind,
        "birads": record.birads,
        "density": record.density,
        "age": header.age if math.isnan(record.age) else record.age,
        "vendor": record.vendor or header.vendor,
        "subset": record.subset,
        "pixel_mm": result.pixel_mm,
    }
