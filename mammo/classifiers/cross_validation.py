"""What the runs over folds and seeds say together: a mean with an honest interval."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """Mean and sd of a metric over runs, and the 95 % interval of its expected value."""

    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Mean difference of two recipes over the same folds and seeds, and whether it is one."""

    mean: float
    low: float  # 95 % interval of the expected difference
    high: float
    p: float  # two-sided, of none


def summarise(folds: Sequence[Sequence[float]], *, level: float = 0.95) -> Summary:
    """Summarise a metric of several folds, each with the values of its seeds.

    A fold's seeds are scored on the same patients, so they count once, as their mean. The training
    sets of J folds overlap, so the variance of the mean is (1 / J + n_test / n_train) s^2 instead
    of s^2 / J, with n_test / n_train = 1 / (J - 1), and t has J - 1 degrees of freedom (Nadeau and
    Bengio 2003, equation 10). The interval is cut at 0 and 1. sd is that over all runs. One value
    has no sd; one fold has no interval, for its seeds say nothing of other patients (nan).
    """
    from scipy.stats import t

    values = [value for fold in folds for value in fold]
    mean = float(np.mean([np.mean(fold) for fold in folds]))
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    error = _standard_error(folds)
    half = float(t.ppf((1 + level) / 2, len(folds) - 1)) * error if len(folds) > 1 else math.nan
    if math.isnan(half):
        return Summary(mean, sd, math.nan, math.nan)
    return Summary(mean, sd, max(0.0, mean - half), min(1.0, mean + half))


def compare_folds(
    ours: Mapping[Hashable, Mapping[Hashable, float]],
    theirs: Mapping[Hashable, Mapping[Hashable, float]],
    *,
    level: float = 0.95,
) -> Difference:
    """Difference of two recipes by {fold: {seed: value}}, over the folds and seeds of both.

    The corrected paired t test (Nadeau and Bengio 2003), seeds averaged within their fold as in
    `summarise`; with fewer than two shared folds low, high and p are nan.
    """
    from scipy.stats import t

    paired = [
        [value - theirs[fold][seed] for seed, value in seeds.items() if seed in theirs[fold]]
        for fold, seeds in ours.items()
        if fold in theirs
    ]
    paired = [fold for fold in paired if fold]
    mean = float(np.mean([np.mean(fold) for fold in paired])) if paired else math.nan
    if len(paired) < 2:
        return Difference(mean, math.nan, math.nan, math.nan)
    error, freedom = _standard_error(paired), len(paired) - 1
    half = float(t.ppf((1 + level) / 2, freedom)) * error
    if error == 0:  # every fold says the same
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    p = 2 * float(t.sf(abs(mean) / error, freedom))
    return Difference(mean, mean - half, mean + half, p)


def _standard_error(folds: Sequence[Sequence[float]]) -> float:
    """Corrected standard error of the mean over folds; nan of one."""
    count = len(folds)
    if count < 2:
        return math.nan
    spread = float(np.std([np.mean(fold) for fold in folds], ddof=1))
    return spread * math.sqrt(1 / count + 1 / (count - 1))
