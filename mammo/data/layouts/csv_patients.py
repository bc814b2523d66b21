"""System 2: `input/train.csv` with a binary `cancer`, images named by patient and image."""

import pandas as pd

from mammo.data.classes import ClassMap
from mammo.data.dataset import Dataset
from mammo.data.layouts import Export

SYSTEM = "system2"
# the split is a column of train.csv; test.csv is another
HOLDS = frozenset({"real", "patients", "splits"})
_KEPT = ("laterality", "view", "age", "density", "label", "split")


def write(export: Export) -> None:
    """Training and validation images by train.csv, the others by test.csv and synthetic.csv."""
    real = export.rows(synthetic=False)
    _write(export, real[real["split"] != "test"], "train")
    _write(export, real[real["split"] == "test"], "test")
    _write(export, export.rows(synthetic=True), "synthetic")


def reading(export: Export) -> dict[str, str]:
    """Settings of preprocess that read the real images again."""
    splits = set(export.rows(synthetic=False)["split"])
    tables = ["train"] * bool(splits - {"test"}) + ["test"] * ("test" in splits)
    classes = export.data.classes
    truth = {"label_column": "label"}
    if len(classes.names) == 2:
        pairs = [f"{name}={_cancer(classes, name)}" for name in classes.names]
        truth = {"label_column": "cancer", "class_map": ",".join(pairs)}
    return {
        "dataset": "csv",
        "csv": ",".join(f"input/{name}.csv" for name in tables),
        "path_pattern": f"input/{_folder(export.data, '{csv}')}/{{patient_id}}_{{image_id}}.png",
        "patient_column": "patient_id",
        **truth,
        "laterality_column": "laterality",
        "view_column": "view",
        "split_column": "split",
    }


def _folder(data: Dataset, part: str) -> str:
    """As in the public system, whose images are 512 pixels high."""
    height = data.shape[1]
    return f"images_as_pngs_{height}/{part}_images_processed_{height}"


def _cancer(classes: ClassMap, label: str) -> int:
    return int(label == classes.positive)


def _write(export: Export, rows: pd.DataFrame, part: str) -> None:
    if not len(rows):
        return
    folder = _folder(export.data, part).split("/")
    lines = []
    for each in export.images(rows):
        name = f"{each.row.group_id}_{each.row.image_id}.png"
        export.png(each, "image 1", "input", *folder, name)
        known = {"patient_id": each.row.group_id, "image_id": each.row.image_id}
        cancer = _cancer(export.data.classes, each.row.label)
        kept = {column: getattr(each.row, column) for column in _KEPT}
        lines.append({**known, "cancer": cancer, **kept})
    export.table(pd.DataFrame(lines), "input", f"{part}.csv")
