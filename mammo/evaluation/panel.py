"""Every metric of one predictions frame, under any weights of its patients.

One weight a patient gives the values themselves, a draw of the bootstrap its values of them: the
number and its interval are the same code.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.evaluation import calibration, operating, ranking
from mammo.evaluation.bootstrap import interval, patient_strata, patient_weights
from mammo.evaluation.weighted import Calibration, Ranking

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
FEW = 4096  # rows up to which a draw's calibration slope takes more steps than one
# Operating points that are metrics: rule -> the metric at its threshold
AT = {
    "specificity_0.9": "sensitivity_at_specificity_90",
    "specificity_0.95": "sensitivity_at_specificity_95",
    "sensitivity_0.9": "specificity_at_sensitivity_90",
}


@dataclass(frozen=True)
class Asked:
    """What a panel needs to know beside the predictions.

    Without `thresholds`, which were chosen on other rows, it has no metric that needs one.
    """

    positive: str
    headline: str = "balanced_accuracy"  # the rule whose threshold calls a row positive
    prevalence: float = 0.005  # of the positive class, where PPV and NPV are to hold
    scale: tuple[str, ...] = ()  # the classes in rising order, where they have one
    temperature: float = 0.0  # 0: none was fitted


Thresholds = Mapping[str, float | Floats]  # by rule; one for all rows, or one a row (rows,)


class Panel:
    """Metrics of `frame`, which has a row an image, breast or patient of the patients group_id."""

    def __init__(self, frame: pd.DataFrame, asked: Asked, thresholds: Thresholds) -> None:
        self.asked, self.classes = asked, ranking.classes_of(frame)
        self._codes, self._strata = patient_strata(frame)
        self._positive = (frame["label"] == asked.positive).to_numpy(bool)
        self._labels = frame["label_id"].to_numpy(np.int64)
        self._scores = frame[[f"score/{name}" for name in self.classes]].to_numpy(np.float64)
        self._score = self._scores[:, self.classes.index(asked.positive)]
        self.called = _called(frame, asked, thresholds.get(asked.headline))
        self._rankings = {
            name: Ranking(side, score, self._codes)
            for name, (side, score) in ranking.sides_by_class(frame, asked.positive).items()
        }
        self._errors = {"": Calibration(self._positive, self._score, self._codes)}
        columns = {
            "rows": np.ones(len(frame)),
            "positives": self._positive,
            **self._calling(thresholds),
            **self._losses("", self._scores),
        }
        if asked.temperature:
            scaled = calibration.scaled(self._scores, asked.temperature)
            columns |= self._losses("_scaled", scaled)
            score = scaled[:, self.classes.index(asked.positive)]
            self._errors["_scaled"] = Calibration(self._positive, score, self._codes)
        self._fits = calibration.slope_and_intercept(self._positive, self._score)
        self._odds = calibration.logit(self._score)
        self._level = calibration.level_at(self._positive, self._odds, self._fits[0])
        columns |= _steps(self._positive, self._odds, self._level, *self._fits)
        self._names = list(columns)
        self._sums = np.stack(
            [np.bincount(self._codes, column, self.patients) for column in columns.values()], axis=1
        )

    @property
    def patients(self) -> int:
        return len(self._strata)

    def values(self) -> dict[str, float]:
        """The metrics; nan where one is undefined."""
        found = self.under(np.ones((1, self.patients)))
        return {name: float(value[0]) for name, value in found.items()}

    def drawn(self, *, draws: int, seed: int) -> dict[str, Floats]:
        """Every metric in every draw of patients: each (draws,)."""
        blocks = patient_weights(self._strata, rows=len(self._codes), draws=draws, seed=seed)
        parts = [self.under(weights) for weights in blocks]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def under(self, weights: Floats) -> dict[str, Floats]:
        """Every metric under `weights` (draws, patients): each (draws,)."""
        with np.errstate(divide="ignore", invalid="ignore"):  # undefined is nan
            sums = dict(zip(self._names, (weights @ self._sums).T, strict=True))
            found = self._ranked(weights)
            found |= _rates(sums, self.asked)
            found |= self._agreement(sums)
            return found | self._calibrated(weights, sums)

    def _ranked(self, weights: Floats) -> dict[str, Floats]:
        each = {name: ranked.measure(weights) for name, ranked in self._rankings.items()}
        own = each.get(self.asked.positive, {})
        found = {"auc": np.asarray(np.mean([one["auc"] for one in each.values()], axis=0))}
        found |= {name: own[name] for name in ("pr_auc", "partial_auc") if name in own}
        if len(self.classes) > 2:
            found["pr_auc_macro"] = np.mean([one["pr_auc"] for one in each.values()], axis=0)
            found |= {f"auc/{name}": one["auc"] for name, one in each.items()}
        return found

    def _calling(self, thresholds: Thresholds) -> dict[str, Floats]:
        """Columns that count what is called what."""
        columns: dict[str, Floats] = {}
        for rule, threshold in thresholds.items():
            called = self._score >= threshold
            columns[f"hits/{rule}"] = (called & self._positive).astype(float)
            columns[f"alarms/{rule}"] = (called & ~self._positive).astype(float)
        columns["mass"] = self._score
        columns["true_mass"] = self._score * self._positive
        if self.called is not None:
            place = self._labels * len(self.classes) + self.called
            cells = range(len(self.classes) ** 2)
            columns |= {f"cell/{cell}": (place == cell).astype(float) for cell in cells}
        return columns

    def _losses(self, suffix: str, scores: Floats) -> dict[str, Floats]:
        score = scores[:, self.classes.index(self.asked.positive)]
        return {
            f"brier{suffix}": (score - self._positive) ** 2,
            f"nll{suffix}": calibration.losses(self._labels, scores),
        }

    def _agreement(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """What the table of true and called classes says."""
        if self.called is None:
            return {}
        count = len(self.classes)
        cells = np.stack([sums[f"cell/{cell}"] for cell in range(count**2)], axis=1)
        table = cells.reshape(-1, count, count)
        found = {"balanced_accuracy": operating.mean_recall(table)}
        if count > 2:
            found["f1_macro"] = operating.mean_f1(table)
            if self.asked.scale:
                order = [self.classes.index(name) for name in self.asked.scale]
                found["kappa"] = operating.quadratic_kappa(table[:, order][:, :, order])
        return found

    def _calibrated(self, weights: Floats, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        losses = ("brier", "nll", "brier_scaled", "nll_scaled")
        found = {name: sums[name] / sums["rows"] for name in losses if name in sums}
        binned = {name: each.measure(weights) for name, each in self._errors.items()}
        found |= {f"ece{name}": each["ece"] for name, each in binned.items()}
        base = sums["positives"] / sums["rows"]
        parts = binned[""] | {"uncertainty": base * (1 - base)}
        found |= {f"brier_{name}": each for name, each in parts.items() if name != "ece"}
        slope, intercept = self._fits
        found["calibration_intercept"] = intercept + sums["own/g"] / sums["own/h"]
        steps = [sums[f"both/{name}"] for name in ("g0", "g1", "h00", "h01", "h11")]
        step = calibration.newton_step(*steps)
        levels, slopes = self._level + step[0], slope + step[1]
        if len(self._score) <= FEW and not np.isnan(slope):
            rows = np.take(weights, self._codes, axis=1)
            for _ in range(2):
                step = calibration.step_of_rows(rows, self._positive, self._odds, levels, slopes)
                levels, slopes = levels + step[0], slopes + step[1]
        found["calibration_slope"] = np.where(np.isfinite(slopes), slopes, np.nan)
        return found


def measured(
    panel: Panel, *, draws: int, seed: int
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """The metrics of a panel that are defined, and the 95 % interval of each."""
    values = {name: value for name, value in panel.values().items() if not np.isnan(value)}
    drawn = panel.drawn(draws=draws, seed=seed)
    return values, {name: interval(drawn[name]) for name in values}


def _called(frame: pd.DataFrame, asked: Asked, threshold: float | Floats | None) -> Codes | None:
    """Class id that each row is called: by the threshold of two classes, else the most probable."""
    classes = ranking.classes_of(frame)
    if len(classes) > 2:
        scores = frame[[f"score/{name}" for name in classes]].to_numpy()
        return np.asarray(scores.argmax(axis=1))
    if threshold is None:
        return None
    own = classes.index(asked.positive)
    return np.asarray(np.where(frame[f"score/{asked.positive}"] >= threshold, own, 1 - own))


def _rates(sums: Mapping[str, Floats], asked: Asked) -> dict[str, Floats]:
    """Metrics at the thresholds, and pF1, which needs none (the RSNA challenge of 2022)."""
    positives = sums["positives"]
    negatives = sums["rows"] - positives
    found: dict[str, Floats] = {}
    if f"hits/{asked.headline}" in sums:
        hits, alarms = sums[f"hits/{asked.headline}"], sums[f"alarms/{asked.headline}"]
        sensitivity, specificity = hits / positives, 1 - alarms / negatives
        ppv, npv = operating.predictive_values(sensitivity, specificity, asked.prevalence)
        found |= {"sensitivity": sensitivity, "specificity": specificity, "ppv": ppv, "npv": npv}
        found["f1"] = 2 * hits / (positives + hits + alarms)
    found["pf1"] = 2 * sums["true_mass"] / (sums["mass"] + positives)
    for rule, name in AT.items():
        if f"hits/{rule}" in sums:
            hits, spared = sums[f"hits/{rule}"], negatives - sums[f"alarms/{rule}"]
            sensitive = name.startswith("sensitivity")
            found[name] = hits / positives if sensitive else spared / negatives
    return found


def _steps(
    positive: NDArray[np.bool_], odds: Floats, level: float, slope: float, intercept: float
) -> dict[str, Floats]:
    """Columns whose sums make one step of Newton, from the fit of all rows to that of a draw.

    `level` and `slope` are one fit, `intercept` the other. With many rows a step is enough.
    """
    mean = calibration.sigmoid(odds + intercept)
    columns = {"own/g": positive - mean, "own/h": mean * (1 - mean)}
    mean = calibration.sigmoid(level + slope * odds)
    curve = mean * (1 - mean)
    return columns | {
        "both/g0": positive - mean,
        "both/g1": (positive - mean) * odds,
        "both/h00": curve,
        "both/h01": curve * odds,
        "both/h11": curve * odds**2,
    }
