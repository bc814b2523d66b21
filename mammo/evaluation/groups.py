"""A classifier judged apart in each group of images: by dataset, by kind of image, by vendor."""

import math
import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.evaluation import operating, ranking

GROUPS = ("dataset", "subset", "vendor", "view", "laterality", "density")
COLUMNS = (
    *("group", "value", "images", "patients", "positives", "auc", "auc_low", "auc_high"),
    *("true_positives", "false_positives", "true_negatives", "false_negatives"),
    *("sensitivity", "specificity"),
)


def by_group(
    images: pd.DataFrame,
    manifest: pd.DataFrame,
    names: list[str],
    *,
    positive: str,
    threshold: float,
    aggregate: str,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """A row (COLUMNS) for each value of each column in `names` that has two or more.

    `images` is a predictions frame, `manifest` holds its images. A patient is judged in a group by
    its images of that group alone, at the one threshold. A group of one side has no AUC (nan).
    """
    told = manifest.set_index("image_id").loc[images["image_id"], names]
    rows = []
    for name in names:
        values = told[name].to_numpy(str)
        known = sorted(set(values) - {""})
        for value in known if len(known) > 1 else []:
            mine = images[values == value].reset_index(drop=True)
            patients = ranking.aggregate(mine, positive, aggregate)
            row = _judged(patients, positive, threshold, draws=draws, seed=seed)
            rows.append({"group": name, "value": value, "images": len(mine), **row})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def metrics_of(table: pd.DataFrame, split: str) -> dict[str, float]:
    """Metrics `<split>/<group>/<value>/<metric>` of a table of `by_group`, those that are known."""
    found = {}
    for row in table.to_dict("records"):
        value = re.sub(r"[^\w.-]", "_", row["value"])  # what a metric's name may hold
        for name in ("auc", "auc_low", "auc_high", "sensitivity", "specificity", "patients"):
            if not math.isnan(row[name]):
                found[f"{split}/{row['group']}/{value}/{name}"] = float(row[name])
    return found


def _judged(
    patients: pd.DataFrame, positive: str, threshold: float, *, draws: int, seed: int
) -> dict[str, float]:
    is_positive: NDArray[np.bool_] = (patients["label"] == positive).to_numpy()
    score = patients[f"score/{positive}"].to_numpy()
    counted = operating.count(is_positive, score, threshold)
    both = bool(is_positive.any() and not is_positive.all())
    low, high = (
        ranking.bootstrap_auc(patients, positive, draws=draws, seed=seed)
        if both
        else (math.nan, math.nan)
    )
    return {
        "patients": patients["group_id"].nunique(),
        "positives": int(is_positive.sum()),
        "auc": ranking.frame_auc(patients, positive) if both else math.nan,
        "auc_low": low,
        "auc_high": high,
        "true_positives": counted.true_positives,
        "false_positives": counted.false_positives,
        "true_negatives": counted.true_negatives,
        "false_negatives": counted.false_negatives,
        "sensitivity": counted.sensitivity if is_positive.any() else math.nan,
        "specificity": counted.specificity if not is_positive.all() else math.nan,
    }
