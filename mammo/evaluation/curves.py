"""Curves of a ranking: ROC, precision and recall, each with its bootstrap band."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mammo.evaluation.bootstrap import patient_strata, patient_weights

Floats = NDArray[np.float64]


def roc(positive: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats]:
    """False and true positive rate at every threshold, from (0, 0) to (1, 1).

    Rows of equal score enter together, so the area under the straight lines is the AUC.
    """
    false, true, _ = _counts(positive, score)
    return false / false[-1], true / true[-1]


def precision_recall(positive: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats]:
    """Recall and precision at every threshold, highest first (a step function of recall)."""
    false, true, _ = _counts(positive, score)
    return true[1:] / true[-1], true[1:] / (true[1:] + false[1:])


def roc_band(
    frame: pd.DataFrame, positive: str, grid: Floats, *, draws: int = 500, seed: int = 0
) -> tuple[Floats, Floats]:
    """Pointwise 95 % band of the true positive rate at the false positive rates `grid`.

    Patients are drawn as in `bootstrap_auc`.
    """
    drawn = []
    for false, true in _drawn_counts(frame, positive, draws=draws, seed=seed):
        drawn.append(np.interp(grid, false / false[-1], true / true[-1]))
    low, high = np.quantile(np.stack(drawn), [0.025, 0.975], axis=0)
    return low, high


def pr_band(
    frame: pd.DataFrame, positive: str, grid: Floats, *, draws: int = 500, seed: int = 0
) -> tuple[Floats, Floats]:
    """Pointwise 95 % band of the precision at the recalls `grid`, all above 0."""
    drawn = []
    for false, true in _drawn_counts(frame, positive, draws=draws, seed=seed):
        # the highest threshold that reaches the recall
        at = np.searchsorted(true / true[-1], np.minimum(grid, 1), "left")
        drawn.append(true[at] / (true[at] + false[at]))
    low, high = np.quantile(np.stack(drawn), [0.025, 0.975], axis=0)
    return low, high


def _drawn_counts(
    frame: pd.DataFrame, positive: str, *, draws: int, seed: int
) -> Iterator[tuple[Floats, Floats]]:
    """False and true positives at every threshold from none on, in each draw of patients."""
    is_positive = (frame["label"] == positive).to_numpy(bool)
    _, _, order = _counts(is_positive, frame[f"score/{positive}"])
    score = frame[f"score/{positive}"].to_numpy(np.float64)[order]
    last = np.append(np.flatnonzero(np.diff(score) != 0), len(score) - 1) + 1
    side = is_positive[order].astype(float)
    codes, strata = patient_strata(frame)
    for weights in patient_weights(strata, rows=len(codes), draws=draws, seed=seed):
        for each in weights[:, codes[order]]:
            true, all_ = np.cumsum(each * side)[last - 1], np.cumsum(each)[last - 1]
            yield np.append(0.0, all_ - true), np.append(0.0, true)


def _counts(positive: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """False and true positives at every threshold from none on, and the order of falling score."""
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)
    true = np.cumsum(positive[order])[last]
    false = np.cumsum(~positive[order])[last]
    return np.append(0.0, false), np.append(0.0, true), order
