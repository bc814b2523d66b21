"""Who trains, validates and tests: partitions by patient, stratified by the patient's label."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.counts import share
from mammo.data.dataset import Dataset
from mammo.data.manifest import SPLITS
from mammo.errors import ConfigError, DataError
from mammo.seeds import derive

NO_FOLD = "none"
_COLUMNS = ["split", "fold"]
_HEAD = 2  # row of a table's first line as a spreadsheet counts, the header being 1


@dataclass(frozen=True)
class Partition:
    """Row numbers of a dataset, ascending; no row is in two of them, and test rows in none."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    scored: NDArray[np.int64]  # the fold that is read once, at the end; empty on a hold-out


def hold_out(
    frame: pd.DataFrame,
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    positive: str = "",
) -> pd.Series:
    """Split of every row of `frame` (columns group_id, label): train, val or test.

    Each fraction is of the patients of a stratum, to within one patient, and at least one
    patient where the fraction is above 0. A patient with any `positive` image is of the
    positive stratum, any other of the rarest class among the patient's images.
    """
    if val_fraction + test_fraction >= 1:
        raise ConfigError(
            f"val_fraction {val_fraction:g} and test_fraction {test_fraction:g} leave nothing to "
            "train on; their sum must be below 1"
        )
    asked = {"test": test_fraction, "val": val_fraction}
    asked = {split: fraction for split, fraction in asked.items() if fraction > 0}
    rng = np.random.default_rng(derive(seed, "hold_out"))
    split_of: dict[str, str] = {}
    for label, groups in _strata(frame, positive, rng):
        _require(label, len(groups), 1 + len(asked), f"train, {' and '.join(asked)}")
        left = groups
        for place, (split, fraction) in enumerate(asked.items()):
            room = len(left) - (len(asked) - place)  # one patient for each split to come, and train
            count = min(max(1, share(fraction, len(groups))), room)
            taken = _spread(left, count, rng)
            split_of |= dict.fromkeys(taken, split)
            left = [group for group in left if group not in split_of]
        split_of |= dict.fromkeys(left, "train")
    return frame["group_id"].map(split_of).rename("split")


def assign_folds(frame: pd.DataFrame, *, k: int, seed: int, positive: str = "") -> pd.Series:
    """Fold (0 to k - 1) of every row of `frame` (columns group_id, label); strata as in `hold_out`.

    Folds differ by at most one patient in each stratum, and by fewer images of a stratum than
    twice its largest patient has.
    """
    if k < 2:
        raise ConfigError(f"k_folds {k} is too few; give 2 or more, or 0 for a hold-out")
    rng = np.random.default_rng(derive(seed, "folds", k))
    fold_of: dict[str, int] = {}
    patients = np.zeros(k, int)
    for label, groups in _strata(frame, positive, rng):
        _require(label, len(groups), k, f"{k} folds")
        # Patients come largest first and go out in rounds of one to each fold, so the image
        # counts of two folds differ by at most the size range, whatever the draw.
        for start in range(0, len(groups), k):
            dealt = groups[start : start + k]
            folds = rng.permutation(k)
            if len(dealt) < k:  # the remainder goes where the fewest patients are
                folds = folds[np.argsort(patients[folds], kind="stable")]
            for group, fold in zip(dealt, folds.tolist(), strict=False):
                fold_of[group] = fold
                patients[fold] += 1
    return frame["group_id"].map(fold_of).astype("int64").rename("fold")


def training_rows(data: Dataset, *, fold: str | int, val_fraction: float = 0.15) -> Partition:
    """Which rows train, validate and are scored: the one answer for generators and classifiers.

    `fold` "none": the columns train and val of a hold-out. A number: that fold is scored, the
    inner validation is `val_fraction` of the patients of the other folds (drawn with a seed that
    depends on the dataset's split seed and the fold alone), the rest trains. Synthetic rows
    train only.
    """
    frame = data.manifest
    if str(fold) == NO_FOLD:
        return _hold_out_rows(data)
    number = _fold_number(data, fold)
    foreign = frame[frame["is_synthetic"]]
    if len(foreign):
        raise DataError(
            f"dataset {data.name} holds synthetic images ({foreign.iloc[0]['image_id']}) beside "
            f"folds; mix for one fold (mix --fold {number}) and train on the result without --folds"
        )
    scored = frame["fold"] == number
    others = frame[(frame["fold"] >= 0) & ~scored & (frame["split"] != "test")]
    inner = hold_out(
        others,
        val_fraction=val_fraction,
        test_fraction=0.0,
        seed=derive(int(data.about.get("split_seed", 0)), "inner", number),
        positive=data.classes.positive,
    )
    rows = others.index.to_numpy(np.int64)
    return Partition(
        train=rows[(inner == "train").to_numpy()],
        val=rows[(inner == "val").to_numpy()],
        scored=np.flatnonzero(scored.to_numpy()),
    )


def fold_numbers(data: Dataset) -> list[int]:
    """The folds of a dataset, ascending; empty on a hold-out."""
    folds = data.manifest["fold"]
    return sorted(int(fold) for fold in folds[folds >= 0].unique())


def write_split_file(frame: pd.DataFrame, path: Path) -> str:
    """Write group_id, split and fold of each patient of `frame` as CSV; returns `split_digest`."""
    table = _table(frame)
    partial = path.with_name(path.name + ".partial")
    table.to_csv(partial, lineterminator="\n")
    partial.replace(path)
    return split_digest(frame)


def read_split_file(path: Path, *, patient_column: str = "group_id") -> pd.DataFrame:
    """Columns split and fold by patient (index) of a CSV as `write_split_file` writes it.

    `fold` may be missing (-1 then), further columns are ignored. DataError gives the rows of a
    patient that the file puts in two places, not the id, which may be the original one.
    """
    try:
        table = pd.read_csv(path, dtype={patient_column: "str", "split": "str"})
    except (OSError, ValueError) as error:
        raise DataError(f"split_file {path} cannot be read: {error}") from None
    missing = [name for name in (patient_column, "split") if name not in table]
    if missing:
        raise DataError(f"split_file {path} lacks the column {missing[0]!r}; it has {[*table]}")
    if "fold" not in table:
        table["fold"] = -1
    table["fold"] = _fold_column(table["fold"], path)
    table = table[[patient_column, *_COLUMNS]].drop_duplicates()
    wrong = table[~table["split"].isin(SPLITS)]
    if len(wrong):
        found = wrong.iloc[0]
        raise DataError(
            f"split_file {path} has split {found['split']!r} in row {wrong.index[0] + _HEAD}; "
            "it should be one of train, val, test"
        )
    torn = table[table[patient_column].duplicated()]
    if len(torn):
        rows = table.index[table[patient_column] == torn.iloc[0][patient_column]] + _HEAD
        raise DataError(
            f"split_file {path} puts the patient of rows {rows[0]} and {rows[1]} in two splits or "
            f"folds ({torn[patient_column].nunique()} such patients); give each patient one line"
        )
    return table.set_index(patient_column).sort_index()


def apply_split_file(frame: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Columns split and fold for every row of `frame` (column group_id) from `read_split_file`."""
    unknown = frame[~frame["group_id"].isin(table.index)]
    if len(unknown):
        raise DataError(
            f"split file has no line for patient {unknown.iloc[0]['group_id']} "
            f"({unknown['group_id'].nunique()} such patients)"
        )
    return table.loc[frame["group_id"], _COLUMNS].set_axis(frame.index)


def split_digest(frame: pd.DataFrame) -> str:
    """Hash of who is where: of the sorted (group_id, split, fold) of the real rows of `frame`."""
    text = _table(frame).to_csv(lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _hold_out_rows(data: Dataset) -> Partition:
    frame = data.manifest
    split = frame["split"].to_numpy()
    train, val = np.flatnonzero(split == "train"), np.flatnonzero(split == "val")
    if not len(val):
        folds = fold_numbers(data)
        remedy = (
            f"it has {len(folds)} folds: choose one with --folds (--fold for a generator or a mix)"
            if folds
            else "preprocess it again with a --val_fraction above 0"
        )
        raise ConfigError(f"dataset {data.name} has no val split; {remedy}")
    if not len(train):
        raise ConfigError(
            f"dataset {data.name} has no train split; preprocess it again with smaller "
            "--val_fraction and --test_fraction"
        )
    return Partition(train=train, val=val, scored=np.empty(0, np.int64))


def _fold_number(data: Dataset, fold: str | int) -> int:
    known = fold_numbers(data)
    if not known:
        raise ConfigError(
            f"fold {fold} is asked of dataset {data.name}, which has no folds; "
            "preprocess it again with --k_folds 5"
        )
    text = str(fold)
    if not text.isdecimal() or int(text) not in known:
        raise ConfigError(
            f"fold {fold!r} of dataset {data.name}: give 'none' or one of {known[0]} to {known[-1]}"
        )
    return int(text)


def _strata(
    frame: pd.DataFrame, positive: str, rng: np.random.Generator
) -> Iterator[tuple[str, list[str]]]:
    """Label and patients of each stratum, patients with most images first, equals shuffled.

    Depends on the patients' ids and labels, not on the order of rows.
    """
    frequency = frame["label"].value_counts()
    rank = {label: (label != positive, int(n), str(label)) for label, n in frequency.items()}
    by_group = frame.groupby("group_id", sort=True)["label"]
    labels = by_group.agg(lambda values: min(values, key=rank.__getitem__))
    sizes = by_group.size()
    for label in sorted(labels.unique()):
        members = labels.index[labels == label].to_numpy()
        members = members[rng.permutation(len(members))]
        order = np.argsort(-sizes[members].to_numpy(), kind="stable")
        yield str(label), members[order].tolist()


def _spread(ordered: list[str], count: int, rng: np.random.Generator) -> list[str]:
    """Draw `count` of `ordered`, one from each of as many equal stretches.

    With patients ordered by size, the draw has its share of large and of small ones.
    """
    edges = [place * len(ordered) // count for place in range(count + 1)]
    return [ordered[int(rng.integers(low, high))] for low, high in pairwise(edges)]


def _fold_column(values: pd.Series, path: Path) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce").fillna(-1)
    wrong = values[(numbers % 1 != 0) | (numbers < -1) | (values.notna() & (numbers != values))]
    if len(wrong):
        raise DataError(
            f"split_file {path} has fold {wrong.iloc[0]!r}; give a number from 0, or nothing"
        )
    return numbers.astype("int64")


def _require(label: str, patients: int, needed: int, parts: str) -> None:
    if patients < needed:
        raise DataError(
            f"class {label!r} has {patients} patients, {needed} are needed for {parts}; "
            "lower k_folds or the number of splits, or merge classes"
        )


def _table(frame: pd.DataFrame) -> pd.DataFrame:
    real = frame[~frame["is_synthetic"]] if "is_synthetic" in frame else frame
    return real.groupby("group_id", sort=True)[_COLUMNS].first()
