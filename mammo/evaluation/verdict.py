"""Every number of one model on one split: ranking, operating point and calibration by patient."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.errors import DataError
from mammo.evaluation import calibration, operating, ranking
from mammo.evaluation.operating import Outcome


@dataclass(frozen=True)
class Verdict:
    """Numbers by the last part of their metric name, and what they were made of."""

    patients: pd.DataFrame  # one row a patient
    metrics: dict[str, float]
    interval: tuple[float, float]  # of the positive class's AUC against the rest
    outcome: Outcome  # at the headline threshold
    operating_points: pd.DataFrame
    confusion: NDArray[np.int64]
    notes: list[str]


def judge(
    images: pd.DataFrame,
    thresholds: dict[str, float],
    positive: str,
    *,
    headline: str,
    aggregate: str,
    draws: int,
    seed: int,
) -> Verdict:
    """Judge predictions `images` at `thresholds` {rule: value} that were chosen elsewhere."""
    patients = ranking.aggregate(images, positive, aggregate)
    classes = ranking.classes_of(patients)
    is_positive, score = patients["label"] == positive, patients[f"score/{positive}"]
    if is_positive.all() or not is_positive.any():
        raise DataError(
            f"{is_positive.sum()} of the {len(patients)} patients evaluated are {positive}; "
            f"both {positive} and other patients are needed"
        )
    outcomes = {
        rule: operating.outcome(is_positive, score, value) for rule, value in thresholds.items()
    }
    chosen = outcomes[headline]
    if len(classes) == 2:
        positive_id = classes.index(positive)
        called = np.where(score >= chosen.threshold, positive_id, 1 - positive_id)
    else:
        called = patients[[f"score/{name}" for name in classes]].to_numpy().argmax(axis=1)
    patients["pred"] = np.asarray(classes, object)[called]
    table = operating.confusion(patients["label_id"], called, len(classes))
    low, high = ranking.bootstrap_auc(patients, positive, draws=draws, seed=seed)
    metrics = {
        "auc": ranking.frame_auc(patients, positive),
        "auc_low": low,
        "auc_high": high,
        "auc_image": ranking.frame_auc(images, positive),
        "pr_auc": ranking.pr_auc(is_positive, score),
        "balanced_accuracy": operating.mean_recall(table),
        "sensitivity": chosen.sensitivity,
        "specificity": chosen.specificity,
        "brier": calibration.brier(is_positive, score),
        "ece": calibration.ece(is_positive, score),
        "patients": float(patients["group_id"].nunique()),
    }
    interval = (low, high)
    if len(classes) > 2:
        metrics |= {f"auc/{name}": value for name, value in _present(patients).items()}
        alone = ranking.against_rest(patients, positive)
        interval = ranking.bootstrap_auc(alone, positive, draws=draws, seed=seed)
    points = pd.DataFrame([{"rule": rule, **each.row()} for rule, each in outcomes.items()])
    notes = _notes(patients, positive, interval)
    return Verdict(patients, metrics, interval, chosen, points, table, notes)


def choose_thresholds(
    validation: pd.DataFrame, positive: str, *, aggregate: str, specificity: float
) -> dict[str, float]:
    """Threshold of every rule, from validation predictions at patient level."""
    patients = ranking.aggregate(validation, positive, aggregate)
    is_positive, score = patients["label"] == positive, patients[f"score/{positive}"]
    return {
        "balanced_accuracy": operating.most_balanced(is_positive, score),
        "specificity": operating.at_specificity(is_positive, score, specificity=specificity),
    }


def detectable_difference(low: float, high: float) -> float:
    """Difference found with 80 % power at the two-sided 5 % level, from a 95 % interval's width."""
    return (1.960 + 0.842) * (high - low) / (2 * 1.960)


def _present(patients: pd.DataFrame) -> dict[str, float]:
    aucs = ranking.class_aucs(patients)
    return {name: value for name, value in aucs.items() if not np.isnan(value)}


def _notes(patients: pd.DataFrame, positive: str, interval: tuple[float, float]) -> list[str]:
    """What a reader must know before trusting the numbers."""
    notes = []
    found = patients["label"].value_counts()
    rare = int((patients["label"] == positive).sum())
    rare = min(rare, len(patients) - rare)
    if rare < 10:
        notes.append(f"The smaller side has only {rare} patients: every interval here is rough.")
    if interval[0] == interval[1]:
        notes.append(
            "The classes are fully separated here, so the bootstrap interval has no width; "
            "that does not make the AUC certain."
        )
    for name in ranking.classes_of(patients):
        if name not in found:
            notes.append(f"Class {name} has no patient here and is left out of the mean AUC.")
    if patients["group_id"].duplicated().any():
        notes.append("Rows are images; intervals draw all images of a patient together.")
    return notes
