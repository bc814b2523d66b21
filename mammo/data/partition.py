"""Gives every row of a new dataset its split and fold: drawn, prescribed or from a file."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd

from mammo.data.manifest import SPLITS
from mammo.data.release import Record
from mammo.data.split_file import apply_split_file, missing_patients
from mammo.data.splits import assign_folds, hold_out
from mammo.data.strata import LABEL, patients_of
from mammo.errors import DataError
from mammo.seeds import derive

LOG = logging.getLogger("mammo")
# What a reader of the run must know of a grouping that is not by patient
RISKS = {
    "patient_laterality": "the two breasts of a patient may be in two splits, and the guards "
    "against leaks compare breasts and not patients: scores may be too good "
    "(group_by=patient_laterality)",
    "image": "images of one patient may be in several splits: scores may be too good "
    "(group_by=image)",
}


@dataclass(frozen=True)
class Divided:
    """Columns split and fold by row, what the run must say of them, and whom nobody has seen."""

    rows: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    missing: pd.DataFrame = field(default_factory=pd.DataFrame)  # of a split file, not in the data


def partition(
    frame: pd.DataFrame,
    prescribed: list[str],
    *,
    val_fraction: float,
    test_fraction: float,
    k_folds: int,
    seed: int,
    positive: str,
    stratify_by: Sequence[str] = LABEL,
    assigned: pd.DataFrame | None = None,
    new_patients: str = "error",
) -> Divided:
    """Split and fold of each row of `frame` (columns group_id, label and `stratify_by`), by group.

    `assigned` (of `read_split_file`) wins; else `prescribed`, the release's own split of each row
    (empty text where it has none); else a stratified draw. A release that prescribes no
    validation gets one drawn from its training rows. With `k_folds` the non-test rows get folds
    and no validation split.
    """
    if assigned is not None:
        return _followed(frame, assigned, k_folds, new_patients)
    draw = partial(hold_out, seed=seed, positive=positive, stratify_by=stratify_by)
    drawn_val = 0.0 if k_folds else val_fraction
    drawn = frame  # of whom a split or a fold is drawn
    if any(prescribed):
        split = _honour(prescribed, frame["group_id"])
        drawn = frame[(split == "train") & (not (split == "val").any())]
        if not k_folds and drawn_val > 0 and len(drawn):
            split.update(draw(drawn, val_fraction=drawn_val, test_fraction=0.0))
        if k_folds:
            split[split == "val"] = "train"
    else:
        split = draw(frame, val_fraction=drawn_val, test_fraction=test_fraction)
    fold = pd.Series(-1, frame.index, dtype="int64")
    if k_folds:
        drawn = frame[split != "test"]
        fold.update(
            assign_folds(drawn, k=k_folds, seed=seed, positive=positive, stratify_by=stratify_by)
        )
    least = k_folds or 1 + (drawn_val > 0) + (test_fraction > 0 and not any(prescribed))
    notes = _merged(drawn, positive, stratify_by, least)
    return Divided(pd.DataFrame({"split": split, "fold": fold}), notes)


def take_patients(
    records: list[Record], limit: int, seed: int, *, positive: str = ""
) -> list[Record]:
    """All records of `limit` patients (0: of all), drawn so that class shares stay.

    A larger `limit` takes all patients of a smaller one, and more.
    """
    if not limit:
        return records
    frame = pd.DataFrame({"group_id": [r.patient for r in records], "label": ""})
    frame["label"] = [record.label for record in records]
    chosen = draw_patients(frame, limit, seed, positive=positive)
    return [record for record in records if record.patient in chosen]


def draw_patients(frame: pd.DataFrame, limit: int, seed: int, *, positive: str = "") -> set[str]:
    """`limit` of the patients in `frame` (columns group_id, label), the class shares kept."""
    table = patients_of(frame, positive=positive, stratify_by=LABEL, least=1)
    turn = np.random.default_rng(derive(seed, "limit")).permutation(len(table))
    drawn = table["label"].iloc[turn]
    place = (drawn.groupby(drawn).cumcount() + 0.5) / drawn.map(drawn.value_counts())
    return set(place.sort_values(kind="stable").index[:limit])


def warm_up(frame: pd.DataFrame, *, negatives: int, positive: str, seed: int) -> pd.Series:
    """Mark the training patients of a warm-up: the positive ones and `negatives` others for each.

    A patient is positive with any `positive` image. Folds are marked one by one, so what trains
    beside a fold keeps the proportion; a fold with too few negative patients gives all.
    """
    marked = pd.Series(False, frame.index)
    training = frame[frame["split"] == "train"]
    for fold, rows in training.groupby("fold"):
        is_positive = (rows["label"] == positive).groupby(rows["group_id"], sort=False).any()
        others = is_positive.index[~is_positive].to_numpy()
        rng = np.random.default_rng(derive(seed, "warmup", fold))
        wanted = negatives * int(is_positive.sum())
        if wanted > len(others):
            LOG.warning(
                "warm-up: %d negative patients requested, %d available%s",
                wanted,
                len(others),
                f" in fold {fold}" if fold >= 0 else "",
            )
        chosen = {*is_positive.index[is_positive], *others[rng.permutation(len(others))[:wanted]]}
        marked[rows.index[rows["group_id"].isin(chosen)]] = True
    return marked


def warm_up_table(frame: pd.DataFrame, *, positive: str) -> pd.DataFrame:
    """Patients, images and prevalence by patient of the warm-up and of all training rows."""
    training = frame[frame["split"] == "train"]
    rows = []
    for part, mine in (("warmup", training[training["warmup"]]), ("training", training)):
        is_positive = (mine["label"] == positive).groupby(mine["group_id"]).any()
        rows.append(
            {
                "part": part,
                "patients": len(is_positive),
                "positive_patients": int(is_positive.sum()),
                "prevalence": float(is_positive.mean()) if len(is_positive) else float("nan"),
                "images": len(mine),
                "positive_images": int((mine["label"] == positive).sum()),
            }
        )
    return pd.DataFrame(rows)


def _followed(
    frame: pd.DataFrame, assigned: pd.DataFrame, k_folds: int, new_patients: str
) -> Divided:
    folds = assigned.loc[assigned["fold"] >= 0, "fold"].nunique()
    if k_folds not in (0, folds):
        raise DataError(
            f"split_file has {folds} folds and k_folds is {k_folds}; leave k_folds at 0 to "
            "follow the file"
        )
    notes = []
    missing = missing_patients(frame, assigned)
    if len(missing):
        notes.append(
            f"{len(missing)} of {len(assigned)} patients of split_file are not in the release "
            "(tables/missing_patients.csv)"
        )
    new = frame.loc[~frame["group_id"].isin(assigned.index), "group_id"].nunique()
    rows = apply_split_file(frame, assigned, new_patients=new_patients)
    if new:
        notes.append(f"{new} patients are not in split_file and train (new_patients=train)")
    return Divided(rows, notes, missing)


def _honour(prescribed: list[str], groups: pd.Series) -> pd.Series:
    """The release's own split of each row, of whole patients."""
    split = pd.Series(prescribed, groups.index, dtype="str")
    wrong = int((~split.isin(SPLITS)).sum())
    if wrong:
        raise DataError(
            f"the release's own split of {wrong} of {len(split)} images is none of "
            f"{', '.join(SPLITS)}; mend it, or give a --split_file"
        )
    torn = int((split.groupby(groups).nunique() > 1).sum())
    if torn:
        raise DataError(
            f"the release's own splits tear {torn} of {groups.nunique()} patients apart; "
            "give each patient one split in a --split_file"
        )
    return split


def _merged(
    frame: pd.DataFrame, positive: str, stratify_by: Sequence[str], least: int
) -> list[str]:
    """What to say when strata were too small to be drawn from one by one."""
    if tuple(stratify_by) == LABEL or not len(frame):
        return []
    table = patients_of(frame, positive=positive, stratify_by=stratify_by, least=least)
    merged = table.loc[table["stratum"] == "", "wanted"].nunique()
    if not merged:
        return []
    return [
        f"{merged} of {table['wanted'].nunique()} strata of {', '.join(stratify_by)} have fewer "
        f"than {least} patients or were joined to such; they are drawn together within their label"
    ]
