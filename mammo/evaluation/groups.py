"""A classifier judged apart in each group of images: by dataset, by kind of image, by vendor."""

import math
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.evaluation import comparison, operating, ranking

GROUPS = (
    *("dataset", "subset", "vendor", "view", "laterality", "density"),
    *("age", "race", "ethnicity"),  # age by AGES; a dataset has the others where its release does
)
AGES = {"under 50": (0, 50), "50 to 69": (50, 70), "70 and over": (70, math.inf)}  # years
COLUMNS = (
    *("group", "value", "images", "patients", "positives", "negatives"),
    *("auc", "auc_low", "auc_high"),
    *("true_positives", "false_positives", "true_negatives", "false_negatives"),
    *("sensitivity", "specificity", "note"),
)


def by_group(
    images: pd.DataFrame,
    manifest: pd.DataFrame,
    names: list[str],
    *,
    positive: str,
    threshold: float,
    aggregate: str,
    least: int,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """A row (COLUMNS) for each value of each column in `names` that has two or more.

    `images` is a predictions frame, `manifest` holds its images. A patient is judged in a group by
    its images of that group alone, at the one threshold. What rests on fewer than `least`
    positive or negative patients is left out (nan), and a group of one side has no AUC.
    """
    rows = []
    for name in names:
        for value, mine in _parts(images, manifest, name).items():
            patients = ranking.aggregate(mine, positive, aggregate)
            row = _judged(patients, positive, threshold, least=least, draws=draws, seed=seed)
            rows.append({"group": name, "value": value, "images": len(mine), **row})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def interactions(
    images: pd.DataFrame,
    manifest: pd.DataFrame,
    names: list[str],
    *,
    positive: str,
    aggregate: str,
    least: int,
) -> pd.DataFrame:
    """Whether the AUC differs between the values of each column, those with enough patients.

    Columns group, values, p, and p_holm over the columns asked (Holm 1979).
    """
    rows = []
    for name in names:
        frames = [
            ranking.aggregate(mine, positive, aggregate)
            for mine in _parts(images, manifest, name).values()
        ]
        enough = [each for each in frames if min(_sides(each, positive)) >= max(2, least)]
        if len(enough) > 1:
            rows.append((name, len(enough), differ_p(enough, positive)))
    table = pd.DataFrame(rows, columns=["group", "values", "p"])
    return table.assign(p_holm=comparison.holm(table["p"].to_numpy(np.float64)))


def differ_p(frames: Sequence[pd.DataFrame], positive: str) -> float:
    """p of one AUC of the positive class in all `frames`, which may share patients.

    Wald's test on the differences, their covariance from the influences summed by patient; nan
    where some difference does not vary.
    """
    from scipy.stats import chi2

    everyone = sorted(set().union(*(each["group_id"] for each in frames)))
    areas, effects = [], []
    for frame in frames:
        side = (frame["label"] == positive).to_numpy(bool)
        areas.append(ranking.auc(side, frame[f"score/{positive}"]))
        effect = comparison.influence(side, frame[f"score/{positive}"])
        for each in (side, ~side):  # as many as there are patients, less the one for the mean
            count = frame["group_id"][each].nunique()
            effect[each] *= math.sqrt(count / (count - 1))
        summed = pd.Series(effect).groupby(frame["group_id"].to_numpy()).sum()
        effects.append(summed.reindex(everyone, fill_value=0).to_numpy())
    difference = np.asarray(areas[:-1]) - areas[-1]
    contrast = np.stack(effects[:-1]) - effects[-1]
    covariance = contrast @ contrast.T
    if np.linalg.matrix_rank(covariance) < len(difference):
        return math.nan
    statistic = difference @ np.linalg.solve(covariance, difference)
    return float(chi2.sf(statistic, len(difference)))


def counts_by_class(patients: pd.DataFrame) -> pd.DataFrame:
    """Patients called rightly and wrongly, a row for each dataset and class.

    `patients` has dataset, label and pred; true_positives are those of the class called it.
    """
    rows = []
    for name, mine in patients.groupby("dataset", sort=True):
        for each in ranking.classes_of(patients):
            truth, called = mine["label"] == each, mine["pred"] == each
            counts = operating.count(truth, called, 1).counts()
            rows.append({"dataset": name, "class": each, "patients": int(truth.sum()), **counts})
    return pd.DataFrame(rows)


def metrics_of(table: pd.DataFrame, split: str) -> dict[str, float]:
    """Metrics `<split>/<group>/<value>/<metric>` of a table of `by_group`, those that are known."""
    found = {}
    for row in table.to_dict("records"):
        value = re.sub(r"[^\w.-]", "_", row["value"])  # what a metric's name may hold
        for name in ("auc", "auc_low", "auc_high", "sensitivity", "specificity", "patients"):
            if not math.isnan(row[name]):
                found[f"{split}/{row['group']}/{value}/{name}"] = float(row[name])
    return found


def _parts(images: pd.DataFrame, manifest: pd.DataFrame, name: str) -> dict[str, pd.DataFrame]:
    """Predictions by the value of column `name`; empty where there are not two values."""
    if name not in manifest:
        return {}
    values = _values(manifest.set_index("image_id").loc[images["image_id"], name])
    known = sorted(set(values) - {""})
    if len(known) < 2:
        return {}
    return {value: images[values == value].reset_index(drop=True) for value in known}


def _values(column: pd.Series) -> NDArray[np.str_]:
    """Group of each row as text, empty where it is not told; of ages the band."""
    if column.name != "age":
        return np.asarray(column.fillna("").to_numpy(str))
    found = np.full(len(column), "", f"<U{max(map(len, AGES))}")
    for band, (first, end) in AGES.items():
        found[((column >= first) & (column < end)).to_numpy()] = band
    return found


def _sides(patients: pd.DataFrame, positive: str) -> tuple[int, int]:
    """Positive and other rows."""
    count = int((patients["label"] == positive).sum())
    return count, len(patients) - count


def _judged(
    patients: pd.DataFrame, positive: str, threshold: float, *, least: int, draws: int, seed: int
) -> dict[str, float | str]:
    is_positive: NDArray[np.bool_] = (patients["label"] == positive).to_numpy()
    counted = operating.count(is_positive, patients[f"score/{positive}"], threshold)
    positives, negatives = _sides(patients, positive)
    found: dict[str, float | str] = {
        "patients": patients["group_id"].nunique(),
        "positives": positives,
        "negatives": negatives,
    }
    enough = {"positive": positives >= max(1, least), "other": negatives >= max(1, least)}
    few = [side for side, told in enough.items() if not told]
    if few:
        found["note"] = f"fewer than {max(1, least)} {' and '.join(few)} patients"
    else:
        found["note"] = ""
        found["auc"] = ranking.frame_auc(patients, positive)
        ends = ranking.bootstrap_auc(patients, positive, draws=draws, seed=seed)
        found["auc_low"], found["auc_high"] = ends
    if enough["positive"]:
        found["true_positives"] = counted.true_positives
        found["false_negatives"] = counted.false_negatives
        found["sensitivity"] = counted.sensitivity
    if enough["other"]:
        found["false_positives"] = counted.false_positives
        found["true_negatives"] = counted.true_negatives
        found["specificity"] = counted.specificity
    return found
