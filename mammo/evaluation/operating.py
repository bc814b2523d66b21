"""Operating points: a threshold chosen on validation predictions, and what it does on others.

Nothing here sees two sets of predictions at once, so a threshold cannot be tuned on the rows that
it is judged by unless the caller passes them twice.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammo.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """The four counts of calling `score >= threshold` positive, and the rates made of them."""

    threshold: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def sensitivity(self) -> float:
        return self.true_positives / (self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float:
        return self.true_negatives / (self.true_negatives + self.false_positives)

    @property
    def balanced_accuracy(self) -> float:
        return (self.sensitivity + self.specificity) / 2

    def row(self) -> dict[str, float]:
        """Counts and rates by name, for a table."""
        rates = ("sensitivity", "specificity", "balanced_accuracy")
        return {**asdict(self), **{name: getattr(self, name) for name in rates}}


def most_balanced(positive: ArrayLike, score: ArrayLike) -> float:
    """Threshold with the highest balanced accuracy; of equally good ones the middle one."""
    thresholds, sensitivity, specificity = _rates(positive, score)
    balanced = sensitivity + specificity
    best = np.flatnonzero(balanced >= balanced.max() - 1e-12)
    return float(thresholds[best[len(best) // 2]])


def at_specificity(positive: ArrayLike, score: ArrayLike, *, specificity: float) -> float:
    """Lowest threshold whose specificity is at least `specificity`, so the most sensitive one."""
    thresholds, _, reached = _rates(positive, score)
    return float(thresholds[np.flatnonzero(reached >= specificity - 1e-12)[0]])


def outcome(positive: ArrayLike, score: ArrayLike, threshold: float) -> Outcome:
    """As `count`, of rows on both sides, so that every rate is defined."""
    _need_both(np.asarray(positive, bool))
    return count(positive, score, threshold)


def count(positive: ArrayLike, score: ArrayLike, threshold: float) -> Outcome:
    """Counts of calling `score` (N,) positive from `threshold` on, against `positive` (N,) bool."""
    positive, called = np.asarray(positive, bool), np.asarray(score) >= threshold
    return Outcome(
        float(threshold),
        true_positives=int(np.sum(called & positive)),
        false_positives=int(np.sum(called & ~positive)),
        true_negatives=int(np.sum(~called & ~positive)),
        false_negatives=int(np.sum(~called & positive)),
    )


def confusion(label_ids: ArrayLike, called_ids: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Counts (classes, classes): true class by row, called class by column."""
    place = np.asarray(label_ids, int) * classes + np.asarray(called_ids, int)
    return np.bincount(place, minlength=classes**2).reshape(classes, classes)


def mean_recall(table: NDArray[np.int64]) -> float:
    """Balanced accuracy of a confusion table: mean over true classes of the share called right."""
    totals = table.sum(axis=1)
    return float(np.mean(np.diag(table)[totals > 0] / totals[totals > 0]))


def _rates(positive: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Thresholds in rising order with their sensitivity and specificity.

    They lie halfway between neighbouring scores, where a new score is least likely to fall on one;
    the first calls everything positive, the last nothing.
    """
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    _need_both(positive)
    levels = np.unique(score)
    between = (levels[:-1] + levels[1:]) / 2
    thresholds = np.concatenate([levels[:1], between, [np.nextafter(levels[-1], np.inf)]])
    above, below = np.sort(score[positive]), np.sort(score[~positive])
    sensitivity = 1 - np.searchsorted(above, thresholds, "left") / len(above)
    specificity = np.searchsorted(below, thresholds, "left") / len(below)
    return thresholds, sensitivity, specificity


def _need_both(positive: NDArray[np.bool_]) -> None:
    if positive.all() or not positive.any():
        raise DataError(
            f"an operating point needs positive and negative rows, there are {positive.sum()} "
            f"positive of {len(positive)}"
        )
