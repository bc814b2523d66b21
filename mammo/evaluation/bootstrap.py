"""Patients drawn with replacement: how often each is drawn, and the intervals that follow."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.seeds import derive

# Weights held at a time (draws x rows): 2 MiB of float64, which stay in a core's cache.
_CHUNK = 1 << 18
Floats = NDArray[np.float64]


def patient_strata(frame: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Patient number of every row, and stratum of every patient (the set of its labels)."""
    codes, _ = pd.factorize(frame["group_id"])
    labels, _ = pd.factorize(frame["label"], sort=True)
    pairs = np.unique(np.stack([codes, labels], axis=1), axis=0)
    strata = np.bincount(pairs[:, 0], weights=2.0 ** pairs[:, 1])  # one bit a label
    return codes.astype(np.int64), strata.astype(np.int64)


def patient_weights(
    strata: NDArray[np.int64], *, rows: int, draws: int, seed: int
) -> Iterator[Floats]:
    """How often each patient is drawn: blocks (<= draws, patients), each stratum keeping its size.

    `strata` (patients,) numbers each patient's stratum; `rows` is how many rows a block will be
    spread over, which decides the size of a block and nothing else.
    """
    members = [np.flatnonzero(strata == each) for each in np.unique(strata)]
    # a source of its own for each stratum: else the draws would depend on the size of a block
    sources = [
        np.random.default_rng(derive(seed, "bootstrap", number)) for number in range(len(members))
    ]
    block = max(1, _CHUNK // max(rows, len(strata)))
    for start in range(0, draws, block):
        size = min(block, draws - start)
        weights = np.empty((size, len(strata)))
        offsets = np.arange(size)[:, None]
        for mine, source in zip(members, sources, strict=True):
            taken = source.integers(len(mine), size=(size, len(mine))) + offsets * len(mine)
            counted = np.bincount(taken.ravel(), minlength=size * len(mine))
            weights[:, mine] = counted.reshape(size, -1)
        yield weights


def interval(drawn: Floats, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of `drawn` (draws,); draws without a value (nan) are left out."""
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
