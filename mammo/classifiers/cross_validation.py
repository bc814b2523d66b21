"""What the runs over folds and seeds say together: a mean with an honest interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mammo.evaluation.families import standard_error


@dataclass(frozen=True)
class Summary:
    """Mean and sd of a metric over runs, and the 95 % interval of its expected value."""

    mean: float
    sd: float
    low: float
    high: float


def summarise(folds: Sequence[Sequence[float]], *, level: float = 0.95) -> Summary:
    """Summarise a metric of several folds, each with the values of its seeds.

    A fold's seeds are scored on the same patients, so they count once, as their mean; t has a
    degree of freedom less than there are folds. The interval is cut at 0 and 1. sd is that over
    all runs. One value has no sd; one fold has no interval, for its seeds say nothing of other
    patients (nan).
    """
    from scipy.stats import t

    values = [value for fold in folds for value in fold]
    mean = float(np.mean([np.mean(fold) for fold in folds]))
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    if len(folds) < 2:
        return Summary(mean, sd, math.nan, math.nan)
    half = float(t.ppf((1 + level) / 2, len(folds) - 1)) * standard_error(folds)
    return Summary(mean, sd, max(0.0, mean - half), min(1.0, mean + half))
