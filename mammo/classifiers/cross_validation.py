"""What the runs over folds and seeds say together: a mean with an honest interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mammo.data.classes import ClassMap
from mammo.evaluation import operating
from mammo.evaluation.families import over_seeds, standard_error
from mammo.evaluation.panel import Asked, Panel, measured
from mammo.evaluation.ranking import aggregate

DRAWS = 2000  # of patients, behind each interval


@dataclass(frozen=True)
class Summary:
    """Mean and sd of a metric over runs, and the 95 % interval of its expected value."""

    mean: float
    sd: float
    low: float
    high: float


def summarise(
    folds: Sequence[Sequence[float]], *, ratio: float = math.nan, level: float = 0.95
) -> Summary:
    """Summarise a metric of several folds, each with the values of its seeds.

    A fold's seeds are scored on the same patients, so they count once, as their mean; t has a
    degree of freedom less than there are folds; `ratio` is that of `standard_error`. The interval
    is cut at 0 and 1. sd is that over all runs. One value has no sd; one fold has no interval, for
    its seeds say nothing of other patients (nan).
    """
    from scipy.stats import t

    values = [value for fold in folds for value in fold]
    mean = float(np.mean([np.mean(fold) for fold in folds]))
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    if len(folds) < 2:
        return Summary(mean, sd, math.nan, math.nan)
    half = float(t.ppf((1 + level) / 2, len(folds) - 1)) * standard_error(folds, ratio=ratio)
    return Summary(mean, sd, max(0.0, mean - half), min(1.0, mean + half))


def out_of_fold(
    scored: list[pd.DataFrame],
    validation: list[pd.DataFrame],
    classes: ClassMap,
    how: str,
) -> pd.DataFrame:
    """Every metric of the patients of all folds together: metric, value, low and high (95 %).

    `scored` and `validation` are the predictions of every run; a fold's seeds are averaged. A
    patient is called by the thresholds that the validation patients of its own fold choose.
    """
    positive = classes.positive
    patients = aggregate(over_seeds(pd.concat(scored, ignore_index=True)), positive, how)
    chosen = pd.DataFrame(
        {
            fold: _thresholds(aggregate(over_seeds(rows), positive, how), positive)
            for fold, rows in pd.concat(validation, ignore_index=True).groupby("fold")
        }
    )  # a column a fold, a row a rule
    mine = {str(rule): patients["fold"].map(row).to_numpy() for rule, row in chosen.iterrows()}
    panel = Panel(patients, Asked(positive, scale=classes.scale), mine)
    values, intervals = measured(panel, draws=DRAWS, seed=0)
    rows = [(name, value, *intervals[name]) for name, value in values.items()]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])


def metrics_of(table: pd.DataFrame) -> dict[str, float]:
    """oof/<metric> with its _low and _high, of a table of `out_of_fold`; classes without."""
    found = {}
    for name, value, low, high in table.itertuples(index=False):
        found[f"oof/{name}"] = value
        if "/" not in name:
            found |= {f"oof/{name}_low": low, f"oof/{name}_high": high}
    return found


def _thresholds(patients: pd.DataFrame, positive: str) -> dict[str, float]:
    return operating.chosen(patients["label"] == positive, patients[f"score/{positive}"])
