"""The golden manifests: what each fake release's records must say, written by hand."""

import csv
import math
from pathlib import Path

from mammo.data.release import Record

_FOLDER = Path(__file__).with_name("golden")


def expected(name: str) -> list[dict[str, str]]:
    """Rows of golden/<name>.csv: a record each, in the order of the release."""
    with (_FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def told(records: list[Record], folder: Path) -> list[dict[str, str]]:
    """`records` as the golden manifests write them; lists joined by ;, paths below `folder`."""
    return [
        {
            "path": ";".join(path.relative_to(folder).as_posix() for path in record.paths),
            "patient": record.patient,
            "exam": record.exam,
            "image": record.image,
            "label": record.label,
            "laterality": record.laterality,
            "view": record.view,
            "birads": record.birads,
            "density": record.density,
            "age": "" if math.isnan(record.age) else f"{record.age:g}",
            "vendor": record.vendor,
            "subset": record.subset,
            "split": record.split,
            "flags": ";".join(record.flags),
            "boxes": ";".join(" ".join(f"{value:g}" for value in box) for box in record.boxes),
            "slice_index": str(record.slice_index),
            "extra": ";".join(f"{name}={value}" for name, value in record.extra.items()),
        }
        for record in records
    ]
