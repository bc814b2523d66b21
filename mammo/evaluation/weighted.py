"""Metrics of rows that count several times: sorted once, then a few sums for every draw.

Weights are those of patients (draws, patients); `codes` (rows,) says whose each row is.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammo.evaluation.calibration import BINS

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
MAX_FPR = 0.1  # of the partial AUC: specificities from 0.9 on


class Ranking:
    """Ranking metrics of a score (rows,) for the side `positive` (rows,), both sides present."""

    def __init__(self, positive: ArrayLike, score: ArrayLike, codes: Codes) -> None:
        positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
        order = np.argsort(score, kind="stable")
        above, below = order[positive[order]], order[~positive[order]]
        self._positives, self._negatives = codes[above], codes[below]
        mine, others = score[above], score[below]
        self._first = np.searchsorted(mine, mine, "left")  # of the positives of its score
        self._below = np.searchsorted(others, mine, "left")
        self._not_above = np.searchsorted(others, mine, "right")
        self._tied = bool((self._not_above != self._below).any())

    def auc(self, weights: Floats) -> Floats:
        """Area under the ROC curve of every draw (draws,)."""
        return self._areas(weights)["auc"]

    def measure(self, weights: Floats, *, max_fpr: float = MAX_FPR) -> dict[str, Floats]:
        """auc, pr_auc (average precision) and partial_auc of every draw, each (draws,).

        partial_auc is the area over false positive rates up to `max_fpr`, scaled so that guessing
        has 0.5 and a perfect ranking 1 (McClish 1989).
        """
        return self._areas(weights, max_fpr=max_fpr)

    def _areas(self, weights: Floats, *, max_fpr: float = 0.0) -> dict[str, Floats]:
        mine = np.take(weights, self._positives, axis=1)
        others = _running(np.take(weights, self._negatives, axis=1))
        below = np.take(others, self._below, axis=1)
        not_above = np.take(others, self._not_above, axis=1) if self._tied else below
        positives, negatives = mine.sum(axis=1), others[:, -1]
        wins = _dot(mine, below) + _dot(mine, not_above)
        found = {"auc": np.asarray(wins / (2 * positives * negatives))}
        if max_fpr:
            negatives = negatives[:, None]
            called = positives[:, None] - _running(mine)[:, self._first]
            called_all = np.maximum(called + negatives - below, 1)  # 0 only where `mine` is 0
            found["pr_auc"] = _dot(mine, called / called_all) / positives
            start, end = 1 - not_above / negatives, 1 - below / negatives
            # a positive adds what is left of the range after its false positive rate, and of
            # rows of equal score a ramp; the ramp's length is 0 without such rows
            left = np.maximum(max_fpr - start, 0)
            length = np.maximum(end - start, 1e-300)
            ramp = np.minimum(left, length)
            area = _dot(mine, left - ramp + ramp**2 / (2 * length)) / positives
            least = max_fpr**2 / 2
            found["partial_auc"] = 0.5 * (1 + (area - least) / (max_fpr - least))
        return found


class Calibration:
    """Calibration of a probability (rows,) over bins of equal mass."""

    def __init__(
        self, positive: ArrayLike, probability: ArrayLike, codes: Codes, *, bins: int = BINS
    ) -> None:
        probability = np.asarray(probability, np.float64)
        order = np.argsort(probability, kind="stable")
        ordered = probability[order]
        self._rows = codes[order]
        outcome = np.asarray(positive, np.float64)[order]
        self._positives = np.flatnonzero(outcome)
        # observed minus predicted: what the error adds up
        self._excess = outcome - ordered
        starts = np.append(True, np.diff(ordered) != 0)
        self._starts = np.append(np.flatnonzero(starts), len(ordered))
        self._tied = not starts.all()
        self._bins = bins

    def measure(self, weights: Floats) -> dict[str, Floats]:
        """ece, and the reliability and resolution of calibration.brier_parts, each (draws,)."""
        mine = np.take(weights, self._rows, axis=1)
        counts = _running(mine)
        if self._tied:
            counts = counts[:, self._starts]
        excess, seen = mine * self._excess, _running(mine[:, self._positives])
        out = np.empty((3, len(weights)))
        for draw, count in enumerate(counts):
            levels = _bin_starts(count, self._bins)
            levels = np.unique(np.append(0, levels[levels < len(count) - 1]))
            cuts = self._starts[levels]
            rows = np.maximum(np.diff(count[levels], append=count[-1]), 1e-300)  # 0: no excess
            gap = np.add.reduceat(excess[draw], cuts)
            first = np.searchsorted(self._positives, cuts)
            share = np.diff(seen[draw, first], append=seen[draw, -1]) / rows
            base = seen[draw, -1] / count[-1]
            parts = np.abs(gap), gap**2 / rows, rows * (share - base) ** 2
            out[:, draw] = [each.sum() / count[-1] for each in parts]
        return dict(zip(("ece", "reliability", "resolution"), out, strict=True))


def _bin_starts(count: Floats, bins: int) -> NDArray[np.intp]:
    """First level of every bin of equal mass but the lowest; `count` (levels + 1,) is cumulative.

    A level lies in the bin of its middle rank, which is half of count[i] + count[i + 1].
    """
    edges = 2 * np.arange(1, bins) * count[-1] / bins  # twice the edge, against twice the rank
    # from here on the rank is over the edge, and only the level before can be too
    later = np.searchsorted(count, edges / 2, "left")
    before = later - 1
    return np.asarray(np.where(count[before] + count[later] >= edges, before, later))


def _running(weights: Floats) -> Floats:
    """Sums of the first 0, 1, ... columns of `weights` (draws, n): (draws, n + 1)."""
    out = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=out[:, 1:])
    return out


def _dot(one: Floats, other: Floats) -> Floats:
    return np.asarray(np.einsum("dp,dp->d", one, other))
