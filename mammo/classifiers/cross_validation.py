"""What the runs over folds and seeds say together: a mean with an honest interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """Mean and sd of a metric over runs, and the 95 % interval of its expected value."""

    mean: float
    sd: float
    low: float
    high: float


def summarise(values: Sequence[float], *, folds: int, level: float = 0.95) -> Summary:
    """Summarise a metric of `folds` folds, once for every seed, in any order.

    The training sets overlap, so the variance of the mean is (1 / J + n_test / n_train) s^2
    instead of s^2 / J, with n_test / n_train = 1 / (folds - 1), and t has J - 1 degrees of
    freedom (Nadeau and Bengio 2003, equation 10; for repeated folds Bouckaert and Frank 2004).
    The interval is cut at 0 and 1. One value has no interval: sd, low and high are nan; nor has
    one fold, whose seeds say nothing of other patients: low and high are nan.
    """
    from scipy.stats import t

    count = len(values)
    mean = float(np.mean(values))
    if count < 2:
        return Summary(mean, math.nan, math.nan, math.nan)
    sd = float(np.std(values, ddof=1))
    if folds < 2:
        return Summary(mean, sd, math.nan, math.nan)
    half = t.ppf((1 + level) / 2, count - 1) * sd * math.sqrt(1 / count + 1 / (folds - 1))
    return Summary(mean, sd, max(0.0, mean - float(half)), min(1.0, mean + float(half)))
