"""Two models on the same patients: the difference of their AUCs, its interval and its test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mammo.errors import DataError
from mammo.evaluation.bootstrap import interval, patient_strata
from mammo.evaluation.panel import Panel
from mammo.evaluation.ranking import auc, bootstrap_aucs, frame_auc, sides

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Comparison:
    """AUC of a model minus that of its baseline on the same patients."""

    auc: float  # the difference
    low: float  # 95 % interval of the paired bootstrap
    high: float
    p: float  # two-sided, DeLong's test by patient
    error: float  # DeLong's standard error of the difference; inf with too few patients to say


def compare(
    frame: pd.DataFrame, baseline: pd.DataFrame, positive: str, *, draws: int = 2000, seed: int = 0
) -> Comparison:
    """Difference in `frame_auc` of two models scored on the same patients, paired by group_id."""
    first, second = paired(frame, baseline)
    drawn = bootstrap_aucs([first, second], positive, draws=draws, seed=seed)
    low, high = interval(drawn[0] - drawn[1])
    delta = frame_auc(first, positive) - frame_auc(second, positive)
    variance = delong_variance(first, second, positive)
    return Comparison(delta, low, high, _two_sided(delta, variance), math.sqrt(variance))


def paired(frame: pd.DataFrame, baseline: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both frames in one order; DataError when they are not of the same labelled patients."""
    keys = ["group_id", "image_id"] if "image_id" in frame else ["group_id"]
    first = frame.sort_values(keys, ignore_index=True)
    second = baseline.sort_values(keys, ignore_index=True)
    if not first[[*keys, "label"]].equals(second[[*keys, "label"]]):
        raise DataError("the model and its baseline were not scored on the same labelled patients")
    return first, second


def differences(ours: Panel, theirs: Panel, *, draws: int, seed: int) -> pd.DataFrame:
    """Every metric of two panels of the same patients in the same order, and the difference.

    Columns metric, model, baseline, difference, low and high (95 %, of paired draws).
    """
    values, others = ours.values(), theirs.values()
    drawn = [each.drawn(draws=draws, seed=seed) for each in (ours, theirs)]
    rows = []
    for name in values:
        if name in others and not math.isnan(values[name] - others[name]):
            ends = interval(drawn[0][name] - drawn[1][name])
            rows.append((name, values[name], others[name], values[name] - others[name], *ends))
    columns = ["metric", "model", "baseline", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def mcnemar_p(right: ArrayLike, other_right: ArrayLike) -> float:
    """Two-sided exact p that two models are right (N,) on the same rows equally often.

    Only rows on which they differ count, each a fair coin (McNemar 1947).
    """
    from scipy.stats import binomtest

    right, other_right = np.asarray(right, bool), np.asarray(other_right, bool)
    differ = int(np.sum(right != other_right))
    return float(binomtest(int(np.sum(right & ~other_right)), differ).pvalue) if differ else 1.0


def holm(p: Floats) -> Floats:
    """p values (N,) corrected for being N (Holm 1979); a nan is of no test and stays."""
    out = np.array(p, np.float64)
    known = np.flatnonzero(~np.isnan(out))
    order = known[np.argsort(out[known], kind="stable")]
    stepped = out[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(1, np.maximum.accumulate(stepped))
    return out


def influence(positive: ArrayLike, score: ArrayLike) -> Floats:
    """Influence of every row on the AUC (N,): DeLong's structural components, centred and scaled.

    A positive row i has (V10_i - AUC) / n_positive, a negative one (V01_i - AUC) / n_negative
    (DeLong et al. 1988, equations 4 and 5), by ranks in O(N log N) (Sun and Xu 2014).
    """
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    above, below = np.sort(score[positive]), np.sort(score[~positive])
    out = np.empty(len(score))
    wins = _rank(below, score[positive]) / len(below)
    losses = 1 - _rank(above, score[~positive]) / len(above)
    centre = auc(positive, score)
    out[positive] = (wins - centre) / len(above)
    out[~positive] = (losses - centre) / len(below)
    return out


def auc_covariance(positive: ArrayLike, scores: Sequence[ArrayLike], codes: Codes) -> Floats:
    """Covariance (models, models) of the AUCs of `scores` (models, N), rows being of patients.

    Of a row a patient it is DeLong's (1988, equation 8); where patients have several, their
    components are summed first (Obuchowski 1997, equations 2 to 6). `codes` (N,) says whose each
    row is. Infinite where only one patient has a positive, or a negative, row.
    """
    positive = np.asarray(positive, bool)
    patients = int(codes.max()) + 1
    each = np.stack([influence(positive, score) for score in scores])
    above, below = (_by_patient(each, side, codes, patients) for side in (positive, ~positive))
    counts = [len(np.unique(codes[side])) for side in (positive, ~positive)]
    if min(counts) < 2:
        return np.full((len(scores), len(scores)), np.inf)
    tens, ones = (count / (count - 1) for count in counts)
    both = patients / (patients - 1) * above @ below.T  # 0 unless a patient has rows of both kinds
    return np.asarray(tens * above @ above.T + ones * below @ below.T + both + both.T)


def delong(positive: ArrayLike, score: ArrayLike, other: ArrayLike, codes: Codes) -> float:
    """Two-sided p of equal AUCs of two scores (N,) of the same rows, of patients `codes` (N,)."""
    variance = _paired_variance(positive, score, other, codes)
    return _two_sided(auc(positive, score) - auc(positive, other), variance)


def delong_p(first: pd.DataFrame, second: pd.DataFrame, positive: str) -> float:
    """Two-sided p of no difference in `frame_auc` of two frames with the same rows."""
    delta = frame_auc(first, positive) - frame_auc(second, positive)
    return _two_sided(delta, delong_variance(first, second, positive))


def delong_variance(first: pd.DataFrame, second: pd.DataFrame, positive: str) -> float:
    """Variance of the difference in `frame_auc` of two frames with the same rows."""
    codes, strata = patient_strata(first)
    pairs = list(zip(sides(first, positive), sides(second, positive), strict=True))
    if len(pairs) == 1:
        (is_positive, score), (_, other) = pairs[0]
        return _paired_variance(is_positive, score, other, codes)
    effects = [influence(*one) - influence(*other) for one, other in pairs]
    return _macro_variance(np.mean(effects, axis=0), codes, strata)


def equivalence_p(delta: float, error: float, margin: float) -> float:
    """p that a normal estimate `delta` with standard error `error` lies within +-`margin`.

    The larger of two one-sided tests, that it is not at least -margin and not at most margin
    (Schuirmann 1987).
    """
    room = margin - abs(delta)
    if error < 1e-9:
        return 0.0 if room > 0 else 1.0
    return math.erfc(room / (error * math.sqrt(2))) / 2


def detectable(error: float, *, tests: int = 1) -> float:
    """Difference that is found with 80 % power where its standard error is `error`.

    Two-sided at 5 %, by Bonferroni where `tests` share it: what Holm asks of the first of them.
    """
    from scipy.stats import norm

    return float(norm.isf(0.025 / tests) + norm.isf(0.2)) * error


def _paired_variance(
    positive: ArrayLike, score: ArrayLike, other: ArrayLike, codes: Codes
) -> float:
    covariance = auc_covariance(positive, [score, other], codes)
    if np.isinf(covariance).any():  # too few patients to say
        return math.inf
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return max(0.0, float(variance))  # where the scores agree, rounding may leave less than none


def _two_sided(delta: float, variance: float) -> float:
    """p of a difference of this variance, which is normal."""
    if variance < 1e-18:  # no patient moves the difference
        return 1.0 if abs(delta) < 1e-12 else 0.0
    return math.erfc(abs(delta) / math.sqrt(2 * variance))


def _macro_variance(effect: Floats, codes: Codes, strata: Codes) -> float:
    """Variance of a macro mean's difference from each row's `effect` (N,) on it, by patient.

    A patient is in one class for one AUC and in the rest for another, so its effects are centred
    within its stratum: the patients of each label are as many as they are.
    """
    patient = np.bincount(codes, weights=effect)
    variance = 0.0
    for each in np.unique(strata):
        mine = patient[strata == each]
        variance += len(mine) * float(np.var(mine, ddof=1)) if len(mine) > 1 else math.inf
    return variance


def _by_patient(each: Floats, side: NDArray[np.bool_], codes: Codes, patients: int) -> Floats:
    """Sums (models, patients) of the components (models, N) of one side's rows."""
    return np.stack([np.bincount(codes[side], row[side], patients) for row in each])


def _rank(ordered: Floats, values: Floats) -> Floats:
    """How many of the sorted `ordered` lie below each of `values`, equal ones counted half."""
    below = np.searchsorted(ordered, values, "left")
    return np.asarray((below + np.searchsorted(ordered, values, "right")) / 2)
