"""The manifest: one row an image, the columns every step relies on, and the guards on them."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mammo.errors import DataError

# Column -> (pandas type, value of an image that has none)
COLUMNS: dict[str, tuple[str, Any]] = {
    "dataset": ("str", ""),
    "group_id": ("str", ""),  # the patient, salted hash
    "exam_id": ("str", ""),
    "image_id": ("str", ""),
    "laterality": ("str", ""),  # L, R or empty
    "view": ("str", ""),  # CC, MLO or empty
    "label": ("str", ""),  # class name, of the dataset's class map
    "label_kind": ("str", ""),
    "birads": ("str", ""),
    "density": ("str", ""),  # A to D, or the release's own letters
    "age": ("float64", float("nan")),  # years
    "vendor": ("str", ""),
    "subset": ("str", ""),
    "pixel_mm": ("float64", float("nan")),  # of the stored image, after resizing
    "sha256": ("str", ""),  # of the stored pixels
    "mask_sha256": ("str", ""),  # of the stored mask, empty where there is none
    "split": ("str", ""),  # train, val or test
    "fold": ("int64", -1),  # -1 outside cross-validation
    "warmup": ("bool", False),  # of the training patients that a warm-up starts with
    "is_synthetic": ("bool", False),
    "generator_run_id": ("str", ""),
    "sample_seed": ("int64", -1),
    "shard": ("str", ""),  # file of the pixels; "<digest>/<file>" in another dataset
    "index": ("int64", -1),  # position in the shard
    # What the file was, for the doctor: a confound shows here first
    "flags": ("str", ""),  # of release.FLAGS, and wall_differs; with semicolons
    "file_height": ("int64", -1),
    "file_width": ("int64", -1),
    "file_bits": ("int64", -1),  # stored bits of a pixel
    "grey_low": ("float64", float("nan")),  # the file's value, after its modality transform,
    "grey_high": ("float64", float("nan")),  # that is stored as 0, and as the brightest value
    "background": ("float64", float("nan")),  # median grey outside the breast, in [0, 1]
    "marks": ("float64", float("nan")),  # share of the file that shines outside the breast
}
SPLITS = ("train", "val", "test")
_CHECKED = (
    "image_id",
    "group_id",
    "label",
    "split",
    "fold",
    "is_synthetic",
    "generator_run_id",
)
_PLACE = ("shard", "index")  # where pixels lie is not part of what they are


def make_manifest(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Manifest of `rows`; columns a row lacks get their empty value, further columns are kept."""
    frame = pd.DataFrame(list(rows))
    for name, (kind, empty) in COLUMNS.items():
        if name not in frame:
            frame[name] = pd.Series([empty] * len(frame), dtype=kind, index=frame.index)
        filled = frame[name].where(frame[name].notna(), empty) if kind != "float64" else frame[name]
        frame[name] = filled.astype(pd.api.types.pandas_dtype(kind))
    extra = sorted(set(frame.columns) - set(COLUMNS))
    return frame[[*COLUMNS, *extra]].reset_index(drop=True)


def check_manifest(frame: pd.DataFrame, class_names: Iterable[str]) -> None:
    """Refuse a manifest that breaks the data contract; DataError names the first offence."""
    missing = sorted(set(COLUMNS) - set(frame.columns))
    if missing:
        raise DataError(f"manifest lacks the columns {', '.join(missing)}")
    frame = frame[list(_CHECKED)]  # selecting rows costs for every column
    _refuse(frame[~frame["split"].isin(SPLITS)], "split", "one of train, val, test")
    _refuse(frame[~frame["label"].isin(list(class_names))], "label", f"of {list(class_names)}")
    _refuse(frame[frame["group_id"] == ""], "group_id", "a patient")
    _refuse(frame[frame["image_id"].duplicated()], "image_id", "unique")
    held_out = frame[frame["is_synthetic"] & (frame["split"] != "train")]
    if len(held_out):
        row = held_out.iloc[0]
        raise DataError(
            f"image {row['image_id']} is synthetic and in split {row['split']!r}; "
            "synthetic images may only be used for training"
        )
    unknown = frame[frame["is_synthetic"] & (frame["generator_run_id"] == "")]
    _refuse(unknown, "generator_run_id", "the run that made the synthetic image")
    check_groups(frame)


def check_groups(frame: pd.DataFrame) -> None:
    """Refuse a patient in two splits or two folds."""
    real = frame.loc[~frame["is_synthetic"], ["image_id", "group_id", "split", "fold"]]
    for column in ("split", "fold"):
        rows = real if column == "split" else real[real["fold"] >= 0]
        # by codes, not groupby: half a million rows are checked whenever a dataset is opened
        patient, names = pd.factorize(rows["group_id"])
        place = pd.factorize(rows[column])[0]
        first = np.full(len(names), -1)
        first[patient[::-1]] = place[::-1]
        torn = names[np.unique(patient[place != first[patient]])]
        if len(torn):
            where = sorted(map(str, rows[rows["group_id"] == torn[0]][column].unique()))
            raise DataError(
                f"patient {torn[0]} is in {column}s {' and '.join(where)} "
                f"({len(torn)} such patients); all images of a patient belong in one {column}"
            )
    mixed = real[(real["fold"] >= 0) & (real["split"] == "test")]
    _refuse(mixed, "fold", "-1 in the test split")


def manifest_digest(frame: pd.DataFrame, about: Mapping[str, Any]) -> str:
    """Digest of all rows, their pixels (through sha256) and `about` (class map, size, ...).

    The order of the rows counts, because seeded draws follow it; where pixels lie does not.
    """
    head = "".join(f"{key}={about[key]}\n" for key in sorted(about))
    rows = rows_digest(frame.drop(columns=list(_PLACE)))
    return hashlib.sha256(f"{head}{rows}".encode()).hexdigest()[:32]


def rows_digest(frame: pd.DataFrame) -> str:
    """Digest of names, values and order of rows; neither the order of columns nor files matter."""
    digest = hashlib.sha256()
    for name in sorted(frame.columns):
        digest.update(f"{name}\0{_column_digest(frame[name])}\n".encode())
    return digest.hexdigest()


def _column_digest(column: pd.Series) -> str:
    """sha256 of a column's values: numbers as 8 little-endian bytes, texts as lengths and UTF-8.

    Only bytes that this file defines are hashed, so that no library's format is part of it.
    """
    kinds = pd.api.types
    if kinds.is_bool_dtype(column.dtype) or kinds.is_integer_dtype(column.dtype):
        return hashlib.sha256(b"int" + column.to_numpy("<i8").tobytes()).hexdigest()
    if kinds.is_float_dtype(column.dtype):
        values = column.to_numpy("<f8") + 0.0  # -0.0 becomes 0.0
        values[np.isnan(values)] = np.nan  # of the many patterns of NaN, one
        return hashlib.sha256(b"float" + values.tobytes()).hexdigest()
    texts = pa.array(column.astype("str"), type=pa.large_string())
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    _, ends, content = texts.buffers()
    ends = np.frombuffer(ends, "<i8")[texts.offset : texts.offset + len(texts) + 1]
    lengths = np.diff(ends)
    lengths[texts.is_null().to_numpy(zero_copy_only=False)] = -1
    digest = hashlib.sha256(b"text" + lengths.astype("<i8").tobytes())
    digest.update(memoryview(content or b"")[ends[0] : ends[-1]])
    return digest.hexdigest()


def _refuse(offenders: pd.DataFrame, column: str, right: str) -> None:
    if len(offenders):
        row = offenders.iloc[0]
        raise DataError(
            f"image {row['image_id']!r} has {column} {row[column]!r}, which should be {right} "
            f"({len(offenders)} such images)"
        )
