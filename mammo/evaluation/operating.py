"""Operating points: a threshold chosen on validation predictions, and what it does on others.

Nothing here sees two sets of predictions at once, so a threshold cannot be tuned on the rows that
it is judged by unless the caller passes them twice.
"""

from dataclasses import asdict, dataclass
from typing import Any

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

    def counts(self) -> dict[str, int]:
        """The four counts by name."""
        return {name: count for name, count in asdict(self).items() if name != "threshold"}

    def row(self) -> dict[str, float]:
        """Counts and rates by name, for a table."""
        rates = ("sensitivity", "specificity", "balanced_accuracy")
        return {**asdict(self), **{name: getattr(self, name) for name in rates}}


def chosen(positive: ArrayLike, score: ArrayLike) -> dict[str, float]:
    """Threshold of every rule with a fixed target, by the name of the rule."""
    return {
        "balanced_accuracy": most_balanced(positive, score),
        "f1": best_f1(positive, score),
        "specificity_0.9": at_specificity(positive, score, specificity=0.9),
        "specificity_0.95": at_specificity(positive, score, specificity=0.95),
        "sensitivity_0.9": at_sensitivity(positive, score, sensitivity=0.9),
    }


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


def at_sensitivity(positive: ArrayLike, score: ArrayLike, *, sensitivity: float) -> float:
    """Highest threshold whose sensitivity is at least `sensitivity`, so the most specific one."""
    thresholds, reached, _ = _rates(positive, score)
    return float(thresholds[np.flatnonzero(reached >= sensitivity - 1e-12)[-1]])


def best_f1(positive: ArrayLike, score: ArrayLike) -> float:
    """Threshold with the highest F1; of equally good ones the middle one."""
    thresholds, sensitivity, specificity = _rates(positive, score)
    positives = np.sum(np.asarray(positive, bool))
    hits, alarms = sensitivity * positives, (1 - specificity) * (np.size(score) - positives)
    f1 = 2 * hits / (positives + hits + alarms)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(thresholds[best[len(best) // 2]])


def predictive_values(
    sensitivity: Floats, specificity: Floats, prevalence: float
) -> tuple[Floats, Floats]:
    """Positive and negative predictive value where `prevalence` of all are positive (Bayes).

    nan where nothing would be called so.
    """
    hits, alarms = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    spared, missed = (1 - prevalence) * specificity, prevalence * (1 - sensitivity)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(hits, hits + alarms), np.divide(spared, spared + missed)


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


def mean_recall(table: NDArray[Any]) -> Floats:
    """Balanced accuracy of confusion tables (..., classes, classes).

    The mean over the true classes that there are of the share called right.
    """
    totals, right = table.sum(axis=-1), np.diagonal(table, axis1=-2, axis2=-1)
    shares = np.where(totals > 0, right / np.maximum(totals, 1e-300), 0)
    return np.asarray(shares.sum(axis=-1) / (totals > 0).sum(axis=-1))


def mean_f1(table: NDArray[Any]) -> Floats:
    """Macro F1 of confusion tables (..., classes, classes), over the classes that there are."""
    right = np.diagonal(table, axis1=-2, axis2=-1)
    counted = table.sum(axis=-1) + table.sum(axis=-2)
    shares = np.where(counted > 0, 2 * right / np.maximum(counted, 1e-300), 0)
    return np.asarray(shares.sum(axis=-1) / (counted > 0).sum(axis=-1))


def quadratic_kappa(table: NDArray[Any]) -> Floats:
    """Agreement beyond chance of confusion tables (..., classes, classes) of ordered classes.

    A disagreement weighs the square of its distance (Cohen 1968); nan where only one class is.
    """
    place = np.arange(table.shape[-1])
    cost = (place[:, None] - place[None]) ** 2
    truth, called = table.sum(axis=-1), table.sum(axis=-2)
    chance = truth[..., :, None] * called[..., None, :] / truth.sum(axis=-1)[..., None, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = (cost * chance).sum(axis=(-1, -2))
        return np.asarray(1 - np.divide((cost * table).sum(axis=(-1, -2)), expected))


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
