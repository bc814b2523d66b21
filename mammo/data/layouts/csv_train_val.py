"""System 1: a CSV for each split (train, val, test), and the images in one folder."""

import pandas as pd

from mammo.data.layouts import Export
from mammo.data.manifest import SPLITS
from mammo.data.provenance import MASK_PLANE

SYSTEM = "system1"
HOLDS = frozenset({"real", "channels", "masks", "patients", "splits"})
_KEPT = ("laterality", "view", "label", "dataset", "birads", "density", "age", "vendor", "subset")
KEEP = ("birads", "density", "age", "vendor", "subset")  # what `keep_columns` reads of them


def write(export: Export) -> None:
    """`<split>.csv` of the real images and `synthetic.csv` of the generated ones."""
    real = export.rows(synthetic=False)
    for split in SPLITS:
        _write(export, real[real["split"] == split], f"{split}.csv")
    _write(export, export.rows(synthetic=True), "synthetic.csv")


def reading(export: Export) -> dict[str, str]:
    """Settings of preprocess that read the real images again."""
    frame = export.rows(synthetic=False)
    tables = [f"{split}.csv" for split in SPLITS if (frame["split"] == split).any()]
    kept = [name for name in KEEP if frame[name].notna().any() and (frame[name] != "").any()]
    masked = (frame["mask_sha256"] != "").any()
    return {
        "dataset": "csv",
        "csv": ",".join(tables),
        "path_column": ",".join(_path_columns(export.data.shape[0])),
        "patient_column": "patient_id",
        "label_column": "label",
        "laterality_column": "laterality",
        "view_column": "view",
        **({"mask_column": "mask"} if masked else {}),
        **({"keep_columns": ",".join(kept)} if kept else {}),
        **({"split_column": "split"} if len(tables) == 1 else {}),
    }


def _path_columns(channels: int) -> list[str]:
    return ["path"] if channels == 1 else [f"path_{number}" for number in range(1, channels + 1)]


def _write(export: Export, rows: pd.DataFrame, name: str) -> None:
    if not len(rows):
        return
    channels = export.data.shape[0]
    lines = []
    for each in export.images(rows):
        image = each.row.image_id
        files = [f"{image}{'' if channels == 1 else f'_{n}'}.png" for n in range(1, channels + 1)]
        planes = zip(files, each.planes, strict=True)
        paths = [export.png(each, plane, "images", file) for file, plane in planes]
        line = dict(zip(_path_columns(channels), paths, strict=True))
        masked = each.mask is not None
        line["mask"] = export.png(each, MASK_PLANE, "masks", f"{image}.png") if masked else ""
        line |= {"patient_id": each.row.group_id, "image_id": image, "split": each.row.split}
        lines.append(line | {column: getattr(each.row, column) for column in _KEPT})
    export.table(pd.DataFrame(lines), name)
