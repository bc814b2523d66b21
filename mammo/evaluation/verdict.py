"""Every number of one model on one split: by patient, by breast and by image."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.errors import DataError
from mammo.evaluation import calibration, comparison, operating, ranking
from mammo.evaluation.operating import Outcome
from mammo.evaluation.panel import Asked, Panel, measured

Thresholds = Mapping[str, float]
Intervals = dict[str, tuple[float, float]]
LEVELS = ("patient", "breast", "image")
COLUMNS = ("level", "metric", "value", "low", "high", "rows", "patients")


@dataclass(frozen=True)
class Choice:
    """What was chosen on validation rows: thresholds by level and rule, and the temperature."""

    thresholds: Mapping[str, Thresholds]  # by level; a level without has no metric at a threshold
    temperature: float = 0.0  # of a patient's scores; 0: none


@dataclass(frozen=True)
class Verdict:
    """Numbers by the last part of their metric name, and what they were made of."""

    patients: pd.DataFrame  # one row a patient
    metrics: dict[str, float]
    interval: tuple[float, float]  # of the positive class's AUC against the rest
    outcome: Outcome  # at the headline threshold
    operating_points: pd.DataFrame
    confusion: NDArray[np.int64]
    table: pd.DataFrame  # COLUMNS: every metric of every level with its interval
    classes: pd.DataFrame  # each class against the rest, by patient
    notes: list[str]


def judge(
    images: pd.DataFrame,
    choice: Choice,
    asked: Asked,
    *,
    aggregate: str,
    draws: int,
    seed: int,
) -> Verdict:
    """Judge predictions `images` by what was chosen on other rows."""
    positive = asked.positive
    patients = ranking.aggregate(images, positive, aggregate)
    classes = ranking.classes_of(patients)
    is_positive, score = patients["label"] == positive, patients[f"score/{positive}"]
    if is_positive.all() or not is_positive.any():
        raise DataError(
            f"{is_positive.sum()} of the {len(patients)} patients evaluated are {positive}; "
            f"both {positive} and other patients are needed"
        )
    asked = replace(asked, temperature=choice.temperature)
    thresholds = choice.thresholds["patient"]
    outcomes = {
        rule: operating.outcome(is_positive, score, value) for rule, value in thresholds.items()
    }
    panel = Panel(patients, asked, thresholds)
    values, intervals = measured(panel, draws=draws, seed=seed)
    patients["pred"] = np.asarray(classes, object)[panel.called]
    metrics = {**_with_intervals(values, intervals), "patients": float(panel.patients)}
    if choice.temperature:
        metrics["temperature"] = choice.temperature
    tables = [_table("patient", values, intervals, patients)]
    asked = replace(asked, temperature=0.0)
    for level, frame in _finer(images, positive, aggregate).items():
        other = Panel(frame, asked, choice.thresholds.get(level, {}))
        values, intervals = measured(other, draws=draws, seed=seed)
        metrics |= {f"{name}_{level}": value for name, value in values.items() if "/" not in name}
        low, high = intervals["auc"]
        metrics |= {f"auc_low_{level}": low, f"auc_high_{level}": high}
        tables.append(_table(level, values, intervals, frame))
    alone = _alone(patients, positive, (metrics["auc_low"], metrics["auc_high"]), draws, seed)
    points = pd.DataFrame([{"rule": rule, **each.row()} for rule, each in outcomes.items()])
    return Verdict(
        patients,
        metrics,
        alone,
        outcomes[asked.headline],
        points,
        operating.confusion(
            patients["label_id"], pd.Categorical(patients["pred"], classes).codes, len(classes)
        ),
        pd.concat(tables, ignore_index=True),
        each_class(patients),
        _notes(patients, images, positive, alone),
    )


def choose(
    validation: pd.DataFrame, positive: str, *, aggregate: str, specificity: float
) -> Choice:
    """Thresholds of every level and the temperature, from validation predictions."""
    patients = ranking.aggregate(validation, positive, aggregate)
    levels = {"patient": patients, **_finer(validation, positive, aggregate)}
    thresholds = {}
    for level, frame in levels.items():
        is_positive, score = frame["label"] == positive, frame[f"score/{positive}"]
        thresholds[level] = {
            **operating.chosen(is_positive, score),
            "specificity": operating.at_specificity(is_positive, score, specificity=specificity),
        }
    return Choice(thresholds, temperature_of(patients))


def temperature_of(patients: pd.DataFrame) -> float:
    """Temperature that fits the patients' scores best."""
    names = [f"score/{name}" for name in ranking.classes_of(patients)]
    return calibration.fit_temperature(patients["label_id"], patients[names].to_numpy())


def detectable_difference(low: float, high: float) -> float:
    """Difference found with 80 % power at the two-sided 5 % level, from a 95 % interval's width."""
    return comparison.detectable((high - low) / (2 * 1.959964))


def each_class(patients: pd.DataFrame) -> pd.DataFrame:
    """Each class against the rest: patients, areas, and the rates of being called it."""
    rows = []
    for name in ranking.classes_of(patients):
        truth = (patients["label"] == name).to_numpy()
        called = (patients["pred"] == name).to_numpy()
        score = patients[f"score/{name}"]
        counts = operating.count(truth, called, 1)
        both = truth.any() and not truth.all()
        rows.append(
            {
                "class": name,
                "patients": int(truth.sum()),
                "auc": ranking.auc(truth, score),
                "pr_auc": ranking.pr_auc(truth, score),
                "sensitivity": counts.sensitivity if both else np.nan,
                "specificity": counts.specificity if both else np.nan,
                "f1": 2 * counts.true_positives / max(1, int(truth.sum() + called.sum())),
                "brier": calibration.brier(truth, score),
                "ece": calibration.ece(truth, score),
            }
        )
    return pd.DataFrame(rows)


def _finer(images: pd.DataFrame, positive: str, aggregate: str) -> dict[str, pd.DataFrame]:
    """Predictions by breast, where every image tells its side, and by image."""
    found = {}
    sides = images["laterality"] if "laterality" in images else pd.Series([""])
    if (sides != "").all() and aggregate != "none":
        unit = ("group_id", "laterality")
        found["breast"] = ranking.aggregate(images, positive, aggregate, unit=unit)
    found["image"] = ranking.aggregate(images, positive, "none")
    return found


def _with_intervals(values: dict[str, float], intervals: Intervals) -> dict[str, float]:
    """Each metric with its _low and _high; those of single classes without."""
    found = dict(values)
    for name, (low, high) in intervals.items():
        if "/" not in name and not np.isnan(low):
            found |= {f"{name}_low": low, f"{name}_high": high}
    return found


def _table(
    level: str, values: dict[str, float], intervals: Intervals, frame: pd.DataFrame
) -> pd.DataFrame:
    counted = len(frame), frame["group_id"].nunique()
    rows = [(level, name, values[name], *intervals[name], *counted) for name in values]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _alone(
    patients: pd.DataFrame, positive: str, own: tuple[float, float], draws: int, seed: int
) -> tuple[float, float]:
    """Interval of the positive class's AUC against the rest."""
    if len(ranking.classes_of(patients)) == 2:
        return own
    alone = ranking.against_rest(patients, positive)
    return ranking.bootstrap_auc(alone, positive, draws=draws, seed=seed)


def _notes(
    patients: pd.DataFrame, images: pd.DataFrame, positive: str, interval: tuple[float, float]
) -> list[str]:
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
    unsided = int((images["laterality"] == "").sum()) if "laterality" in images else 0
    if 0 < unsided < len(images):
        notes.append(f"{unsided} images do not tell their breast: no metric is by breast.")
    return notes
