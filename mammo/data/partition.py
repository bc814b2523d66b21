"""Gives every row of a new dataset its split and fold: drawn, prescribed or from a file."""

from functools import partial
from pathlib import Path

import pandas as pd

from mammo.data.manifest import SPLITS
from mammo.data.release import Record
from mammo.data.splits import apply_split_file, assign_folds, hold_out, read_split_file
from mammo.errors import DataError
from mammo.seeds import derive


def partition(
    frame: pd.DataFrame,
    prescribed: list[str],
    *,
    val_fraction: float,
    test_fraction: float,
    k_folds: int,
    seed: int,
    positive: str,
    split_file: str = "",
) -> pd.DataFrame:
    """Columns split and fold for `frame` (columns group_id, label), by group.

    `split_file` wins; else `prescribed`, the release's own split of each row (empty text where it
    has none); else a stratified draw. A release that prescribes no validation gets one drawn
    from its training rows. With `k_folds` the non-test rows get folds and no validation split.
    """
    if split_file:
        return apply_split_file(frame, read_split_file(Path(split_file).expanduser()))
    draw = partial(hold_out, seed=seed, positive=positive)
    drawn_val = 0.0 if k_folds else val_fraction
    if any(prescribed):
        split = _honour(prescribed, frame.index)
        rest = frame[split == "train"]
        if not k_folds and drawn_val > 0 and not (split == "val").any():
            split.update(draw(rest, val_fraction=drawn_val, test_fraction=0.0))
        if k_folds:
            split[split == "val"] = "train"
    else:
        split = draw(frame, val_fraction=drawn_val, test_fraction=test_fraction)
    fold = pd.Series(-1, frame.index, dtype="int64")
    if k_folds:
        fold.update(assign_folds(frame[split != "test"], k=k_folds, seed=seed, positive=positive))
    return pd.DataFrame({"split": split, "fold": fold})


def keep_twins_together(frame: pd.DataFrame) -> pd.Series:
    """Group ids of `frame` (columns group_id, sha256) with pixel-identical images in one group.

    For releases without patients, where each image would else be a group of its own and its copy
    could land in another split. The group of several is the first of theirs by name.
    """
    return frame.groupby("sha256")["group_id"].transform("min")


def take_patients(records: list[Record], limit: int, seed: int) -> list[Record]:
    """All records of `limit` patients (0: of all), drawn so that class shares stay."""
    if not limit:
        return records
    labels: dict[str, str] = {}
    for record in records:
        labels.setdefault(record.patient, record.label)
    drawn = sorted(labels, key=lambda patient: derive(seed, "limit", patient))
    total, seen = pd.Series(labels).value_counts(), dict[str, int]()
    place: dict[str, float] = {}
    for patient in drawn:
        label = labels[patient]
        seen[label] = seen.get(label, 0) + 1
        place[patient] = (seen[label] - 0.5) / total[label]
    chosen = set(sorted(drawn, key=lambda patient: place[patient])[:limit])
    return [record for record in records if record.patient in chosen]


def _honour(prescribed: list[str], index: pd.Index) -> pd.Series:
    split = pd.Series(prescribed, index, dtype="str")
    wrong = split[~split.isin(SPLITS)]
    if len(wrong):
        raise DataError(
            f"the release prescribes split {wrong.iloc[0]!r} for {len(wrong)} images; "
            f"each image needs one of {', '.join(SPLITS)}"
        )
    return split
