"""Two families of runs compared: by their shared folds and seeds, and by their pooled patients.

A family is the predictions of its runs, each row with its run's fold and seed.
"""

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mammo.errors import DataError
from mammo.evaluation import comparison, ranking
from mammo.evaluation.panel import Asked, Panel
from mammo.evaluation.predictions import TOLD, TRAINED_ON

RUN = ["fold", "seed"]
_AVERAGED = ("score/", "logit/", *TOLD)  # starts of the columns whose mean over the runs counts
METRICS = ("auc", "pr_auc", "partial_auc", "pf1", "brier", "nll", "ece")
COLUMNS = (
    *("metric", "pairs", "model", "model_sd", "baseline", "baseline_sd"),
    *("difference", "low", "high", "p", "p_t", "p_wilcoxon"),
)


@dataclass(frozen=True)
class Difference:
    """Mean difference of two recipes over the same folds and seeds, and whether it is one."""

    mean: float
    low: float  # 95 % interval of the expected difference
    high: float
    p: float  # two-sided, of none


def of_runs(predictions: pd.DataFrame, positive: str, how: str) -> pd.DataFrame:
    """METRICS by patient of every run of a family, a row a fold and seed.

    Column scored is a digest of the images that the run has scored, ratio how many they are for
    each image trained on.
    """
    names = [f"score/{name}" for name in ranking.classes_of(predictions)]
    unknown = int(predictions[names].isna().any(axis=1).sum())
    if unknown:
        raise DataError(f"there are {unknown} predictions without a score; each image needs one")
    rows = []
    for (fold, seed), mine in predictions.groupby(RUN, sort=True):
        patients = ranking.aggregate(mine.reset_index(drop=True), positive, how)
        both = patients["label"].nunique() > 1 and (patients["label"] == positive).any()
        found = Panel(patients, Asked(positive), {}).values() if both else {}
        run = {"fold": fold, "seed": seed, "scored": _digest(mine["image_id"])}
        run["ratio"] = scored_per_trained(mine)
        rows.append(run | {name: found.get(name) for name in METRICS})
    return pd.DataFrame(rows).astype(dict.fromkeys(METRICS, "float64"))


def paired(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Each metric of two tables of `of_runs` over the folds and seeds of both: COLUMNS.

    low, high and p are corrected for folds that share training patients; p_t (Student's paired
    test) and p_wilcoxon take every run for one apart, so they are right for seeds of a hold-out,
    which then say nothing of other patients, and too small for folds.
    """
    from scipy.stats import ttest_rel, wilcoxon

    both = ours.merge(theirs, on=RUN, suffixes=("", "/theirs"))
    if not len(both):
        raise DataError("the two share no fold and seed; run the baseline on the same ones")
    other = both[both["scored"] != both["scored/theirs"]]
    if len(other):
        run = other.iloc[0]
        raise DataError(
            f"fold {run['fold']} with seed {run['seed']} has other images in the two; pairs need "
            "the same folds, as of one preprocessed dataset"
        )
    # of the two the larger: an interval that is too wide claims nothing
    ratio = float(np.fmax(both["ratio"].mean(), both["ratio/theirs"].mean()))
    rows = []
    for name in METRICS:
        known = both[both[name].notna() & both[f"{name}/theirs"].notna()]
        if not len(known):
            continue  # undefined in every run
        mine, others = known[name], known[f"{name}/theirs"]
        delta = (mine - others).to_numpy()
        by_fold = [_by_fold(known, each) for each in (name, f"{name}/theirs")]
        found = compare_folds(*by_fold, ratio=ratio)
        several, moves = len(delta) > 1, float(np.ptp(delta)) > 0
        p_t = float(ttest_rel(mine, others).pvalue) if several and moves else math.nan
        ranked = float(wilcoxon(delta).pvalue) if several and delta.any() else math.nan
        spread = (mine.std(ddof=1), others.std(ddof=1)) if several else (math.nan, math.nan)
        means = (mine.mean(), spread[0], others.mean(), spread[1])
        told = (found.mean, found.low, found.high, found.p)
        rows.append((name, len(delta), *means, *told, p_t, ranked))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def pooled(
    ours: pd.DataFrame, theirs: pd.DataFrame, positive: str, how: str, *, draws: int, seed: int
) -> comparison.Comparison:
    """AUC of patients pooled over folds, seeds averaged, minus that of the baseline, paired."""
    mine, others = (ranking.aggregate(over_seeds(each), positive, how) for each in (ours, theirs))
    return comparison.compare(mine, others, positive, draws=draws, seed=seed)


def over_seeds(predictions: pd.DataFrame) -> pd.DataFrame:
    """A row an image: scores, logits, uncertainty and attention are the mean over its runs."""
    names = ranking.classes_of(predictions)
    averaged = [name for name in predictions if str(name).startswith(_AVERAGED)]
    means = predictions.groupby("image_id", sort=True)[averaged].mean()
    first = predictions.drop_duplicates("image_id").set_index("image_id")
    out = first.drop(columns=[*averaged, "seed", "pred"], errors="ignore").join(means)
    highest = out[[f"score/{name}" for name in names]].to_numpy().argmax(axis=1)
    return out.assign(pred=np.asarray(names, object)[highest]).sort_index().reset_index()


def _digest(image_ids: pd.Series) -> str:
    return hashlib.sha256("\n".join(sorted(image_ids)).encode()).hexdigest()[:16]


def _by_fold(runs: pd.DataFrame, name: str) -> dict[Hashable, dict[Hashable, float]]:
    return {
        fold: dict(zip(part["seed"], part[name], strict=True))
        for fold, part in runs.groupby("fold")
    }


def compare_folds(
    ours: Mapping[Hashable, Mapping[Hashable, float]],
    theirs: Mapping[Hashable, Mapping[Hashable, float]],
    *,
    ratio: float = math.nan,
    level: float = 0.95,
) -> Difference:
    """Difference of two recipes by {fold: {seed: value}}, over the folds and seeds of both.

    The corrected paired t test (Nadeau and Bengio 2003), seeds averaged within their fold, whose
    patients they share; with fewer than two shared folds low, high and p are nan. `ratio` is that
    of `standard_error`.
    """
    from scipy.stats import t

    deltas = [
        [value - theirs[fold][seed] for seed, value in seeds.items() if seed in theirs[fold]]
        for fold, seeds in ours.items()
        if fold in theirs
    ]
    deltas = [fold for fold in deltas if fold]
    mean = float(np.mean([np.mean(fold) for fold in deltas])) if deltas else math.nan
    if len(deltas) < 2:
        return Difference(mean, math.nan, math.nan, math.nan)
    error, freedom = standard_error(deltas, ratio=ratio), len(deltas) - 1
    half = float(t.ppf((1 + level) / 2, freedom)) * error
    if error == 0:  # every fold says the same
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    p = 2 * float(t.sf(abs(mean) / error, freedom))
    return Difference(mean, mean - half, mean + half, p)


def standard_error(folds: Sequence[Sequence[float]], *, ratio: float = math.nan) -> float:
    """Standard error of the mean over J folds, each with the values of its seeds; nan of one.

    The folds' training sets overlap, so the variance is (1 / J + n_test / n_train) s^2 instead of
    s^2 / J (Nadeau and Bengio 2003, equation 10). `ratio` is n_test / n_train, the validation rows
    not among those trained on; where nothing is known of them (nan) it is 1 / (J - 1).
    """
    count = len(folds)
    if count < 2:
        return math.nan
    spread = float(np.std([np.mean(fold) for fold in folds], ddof=1))
    known = 1 / (count - 1) if math.isnan(ratio) else ratio
    return spread * math.sqrt(1 / count + known)


def scored_per_trained(predictions: pd.DataFrame) -> float:
    """Images that a run has scored over the real ones that it trained on; nan where not told."""
    trained = predictions.get(TRAINED_ON, pd.Series(dtype="float64")).dropna()
    if not len(trained):
        return math.nan
    return len(predictions) / float(trained.iloc[0])
