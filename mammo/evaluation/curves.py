"""Curves of a ranking: ROC with its bootstrap band, precision and recall."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mammo.evaluation.ranking import patient_strata, patient_weights

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
    is_positive = (frame["label"] == positive).to_numpy(bool)
    _, _, order = _counts(is_positive, frame[f"score/{positive}"])
    score = frame[f"score/{positive}"].to_numpy(np.float64)[order]
    last = np.append(np.diff(score) != 0, True)
    codes, strata = patient_strata(frame)
    drawn = []
    for weights in patient_weights(strata, rows=len(codes), draws=draws, seed=seed):
        rows = weights[:, codes][:, order]
        true = np.cumsum(rows * is_positive[order], axis=1)[:, last]
        false = np.cumsum(rows * ~is_positive[order], axis=1)[:, last]
        for above, beside in zip(true, false, strict=True):
            x = np.concatenate([[0.0], beside / beside[-1]])
            drawn.append(np.interp(grid, x, np.concatenate([[0.0], above / above[-1]])))
    low, high = np.quantile(np.stack(drawn), [0.025, 0.975], axis=0)
    return low, high


def _counts(positive: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """False and true positives at every threshold from none on, and the order of falling score."""
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)
    true = np.cumsum(positive[order])[last]
    false = np.cumsum(~positive[order])[last]
    return np.append(0.0, false), np.append(0.0, true), order
