"""Calibration of the positive class's probability: Brier score, calibration error, reliability."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

BINS = 15


def brier(positive: ArrayLike, probability: ArrayLike) -> float:
    """Mean squared difference of `probability` (N,) in [0, 1] and outcome (N,) (Brier 1950)."""
    outcome = np.asarray(positive, np.float64)
    return float(np.mean((np.asarray(probability, np.float64) - outcome) ** 2))


def ece(positive: ArrayLike, probability: ArrayLike, *, bins: int = BINS) -> float:
    """Expected calibration error over bins of equal mass: mean |observed - predicted| by row."""
    table = reliability(positive, probability, bins=bins)
    gap = (table["observed"] - table["predicted"]).abs()
    return float((gap * table["rows"]).sum() / table["rows"].sum())


def reliability(positive: ArrayLike, probability: ArrayLike, *, bins: int = BINS) -> pd.DataFrame:
    """Mean prediction, observed share and rows of each of `bins` bins of equal mass.

    Equal probabilities share a bin (that of their middle rank), so the order of rows never counts
    and fewer than `bins` bins may be left.
    """
    probability = np.asarray(probability, np.float64)
    ordered = np.sort(probability)
    first = np.searchsorted(ordered, probability, "left")
    last = np.searchsorted(ordered, probability, "right")
    place = (first + last) * bins // (2 * len(ordered))
    rows = pd.DataFrame(
        {"predicted": probability, "observed": np.asarray(positive, np.float64), "bin": place}
    )
    table = rows.groupby("bin").agg(
        predicted=("predicted", "mean"), observed=("observed", "mean"), rows=("observed", "size")
    )
    return table.reset_index(drop=True)
