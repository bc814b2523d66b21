"""Who trains, validates and tests: partitions by patient, stratified by the patient's label."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.counts import apportion, share
from mammo.data.dataset import Dataset
from mammo.data.strata import LABEL, by_label
from mammo.errors import ConfigError, DataError
from mammo.seeds import derive

NO_FOLD = "none"


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
    stratify_by: Sequence[str] = LABEL,
) -> pd.Series:
    """Split of every row of `frame` (columns group_id, label): train, val or test.

    Each fraction is of the patients of a label, to within one patient, and at least one patient
    where the fraction is above 0; of a finer stratum (`stratify_by`) to within two patients.
    What a patient's label is, and which strata are drawn together, says `strata.patients_of`.
    """
    if val_fraction + test_fraction >= 1:
        raise ConfigError(
            f"val_fraction {val_fraction:g} and test_fraction {test_fraction:g} leave nothing to "
            "train on; their sum must be below 1"
        )
    asked = {"test": test_fraction, "val": val_fraction}
    asked = {split: fraction for split, fraction in asked.items() if fraction > 0}
    rng = np.random.default_rng(derive(seed, "hold_out"))
    least = 1 + len(asked)
    split_of: dict[str, str] = {}
    for label, strata in by_label(
        frame, positive=positive, stratify_by=stratify_by, least=least, rng=rng
    ):
        patients = left = sum(map(len, strata))
        _require(label, patients, least, f"train, {' and '.join(asked)}")
        for place, (split, fraction) in enumerate(asked.items()):
            room = left - (len(asked) - place)  # one patient for each split to come, and train
            count = min(max(1, share(fraction, patients)), room)
            left -= count
            parts = apportion(count, [len(stratum) for stratum in strata])
            for stratum, part in zip(strata, parts, strict=True):
                taken = _spread(stratum, part, rng)
                split_of |= dict.fromkeys(taken, split)
                stratum[:] = [group for group in stratum if group not in split_of]
        split_of |= dict.fromkeys((group for stratum in strata for group in stratum), "train")
    return frame["group_id"].map(split_of).rename("split")


def assign_folds(
    frame: pd.DataFrame,
    *,
    k: int,
    seed: int,
    positive: str = "",
    stratify_by: Sequence[str] = LABEL,
) -> pd.Series:
    """Fold (0 to k - 1) of every row of `frame` (columns group_id, label); strata as in `hold_out`.

    Folds differ by at most one patient in each stratum and in each label, and by fewer images of
    a stratum than twice its largest patient has. Stratified by label alone, the prevalence by
    patient of a fold is therefore within 2 / n of that of all: 2 points with n = 100 patients a
    fold; with fewer, one patient weighs more than that and nothing better exists.
    """
    if k < 2:
        raise ConfigError(f"k_folds {k} is too few; give 2 or more, or 0 for a hold-out")
    rng = np.random.default_rng(derive(seed, "folds", k))
    fold_of: dict[str, int] = {}
    patients = np.zeros(k, int)
    for label, strata in by_label(
        frame, positive=positive, stratify_by=stratify_by, least=k, rng=rng
    ):
        _require(label, sum(map(len, strata)), k, f"{k} folds")
        of_label = np.zeros(k, int)
        for groups in strata:
            # Patients come largest first and go out in rounds of one to each fold, so the image
            # counts of two folds differ by at most the size range, whatever the draw.
            for start in range(0, len(groups), k):
                dealt = groups[start : start + k]
                folds = rng.permutation(k)
                if len(dealt) < k:  # the remainder goes where the fewest patients are
                    folds = folds[np.lexsort((patients[folds], of_label[folds]))]
                for group, fold in zip(dealt, folds.tolist(), strict=False):
                    fold_of[group] = fold
                    of_label[fold] += 1
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


def _spread(ordered: list[str], count: int, rng: np.random.Generator) -> list[str]:
    """Draw `count` of `ordered`, one from each of as many equal stretches.

    With patients ordered by size, the draw has its share of large and of small ones.
    """
    if not count:
        return []
    edges = [place * len(ordered) // count for place in range(count + 1)]
    return [ordered[int(rng.integers(low, high))] for low, high in pairwise(edges)]


def _require(label: str, patients: int, needed: int, parts: str) -> None:
    if patients < needed:
        raise DataError(
            f"class {label!r} has {patients} patients, {needed} are needed for {parts}; "
            "lower k_folds or the number of splits, or merge classes"
        )
