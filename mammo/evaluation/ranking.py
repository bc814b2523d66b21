"""Ranking quality of predictions by patient: AUC with its interval, and two models compared.

A predictions frame has one row an image with the columns image_id, group_id, label, label_id and
`score/<class>` for every class, in the order of the class ids; other columns are kept.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mammo.errors import ConfigError, DataError
from mammo.evaluation import AGGREGATES
from mammo.seeds import derive

_CHUNK = 1 << 22  # weights held at a time: draws x rows, 32 MiB of float64
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """AUC of a model minus that of its baseline on the same patients."""

    auc: float  # the difference
    low: float  # 95 % interval of the paired bootstrap
    high: float
    p: float  # two-sided, DeLong's test at patient level


def auc(positive: ArrayLike, score: ArrayLike) -> float:
    """Chance that a positive scores above a negative, ties counted half (Mann-Whitney).

    `positive` (N,) is bool, `score` (N,) any numbers; exact, O(N log N); nan when a side is empty.
    """
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    negatives = np.sort(score[~positive])
    positives = score[positive]
    if not len(negatives) or not len(positives):
        return math.nan
    below = np.searchsorted(negatives, positives, "left")
    not_above = np.searchsorted(negatives, positives, "right")
    # whole numbers until the last division: no rounding, whatever the order of the rows
    return int(below.sum() + not_above.sum()) / (2 * len(negatives) * len(positives))


def pr_auc(positive: ArrayLike, score: ArrayLike) -> float:
    """Average precision: sum over thresholds of precision times the gain in recall.

    Rows of equal score enter together. nan without a positive.
    """
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    if not positive.any():
        return math.nan
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.append(np.diff(score[order]) != 0, True)  # last row of each tie
    hits, taken = hits[last], np.flatnonzero(last) + 1
    return float(np.sum(hits / taken * np.diff(hits, prepend=0)) / hits[-1])


def classes_of(frame: pd.DataFrame) -> list[str]:
    """Class names of a predictions frame, in the order of their ids."""
    return [str(name).removeprefix("score/") for name in frame if str(name).startswith("score/")]


def aggregate(frame: pd.DataFrame, positive: str, how: str = "mean") -> pd.DataFrame:
    """One row a patient from a predictions frame, sorted by group_id, with a column `images`.

    Scores: `mean` of the patient's images; `max` takes those of its image with the highest
    positive score, so that they still sum to 1; `none` keeps a row an image.
    Label: the positive class if any of its images has it, else the most frequent one, of equally
    frequent ones that with the highest id.
    """
    if how not in AGGREGATES:
        raise ConfigError(f"aggregate {how!r} is not one of {', '.join(AGGREGATES)}")
    classes = classes_of(frame)
    names = [f"score/{each}" for each in classes]
    if how == "none":
        return frame.assign(images=1).sort_values(["group_id", "image_id"], ignore_index=True)
    if how == "max":
        top = frame.sort_values([f"score/{positive}", "image_id"], kind="stable")
        scores = top.groupby("group_id")[names].last()
    else:
        scores = frame.groupby("group_id")[names].mean()
    votes = pd.crosstab(frame["group_id"], frame["label"]).reindex(columns=classes, fill_value=0)
    counts = votes.to_numpy()
    winner = len(classes) - 1 - np.argmax(counts[:, ::-1], axis=1)
    label_id = np.where(votes[positive] > 0, classes.index(positive), winner)
    others = [name for name in ("split", "fold", "seed") if name in frame]
    out = frame.groupby("group_id")[others].first()
    out["label"] = np.asarray(classes, object)[label_id]
    out["label_id"] = label_id
    out["images"] = counts.sum(axis=1)
    out = out.join(scores)
    out["pred"] = np.asarray(classes, object)[np.argmax(scores.to_numpy(), axis=1)]
    return out.reset_index()


def class_aucs(frame: pd.DataFrame) -> dict[str, float]:
    """AUC of every class against the rest, over the rows of `frame`."""
    return {name: auc(frame["label"] == name, frame[f"score/{name}"]) for name in classes_of(frame)}


def against_rest(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """`frame` as one of two classes: `name` and "other"."""
    score = frame[f"score/{name}"]
    keys = [each for each in ("image_id", "group_id") if each in frame]
    label = frame["label"].where(frame["label"] == name, "other")
    columns = {"label": label, "score/other": 1 - score, f"score/{name}": score}
    return frame[keys].assign(**columns)


def frame_auc(frame: pd.DataFrame, positive: str) -> float:
    """The AUC of a frame: of the positive class, with more than two the macro mean over classes.

    A class without rows is left out of the mean; nan when nothing is left.
    """
    scored = [auc(*each) for each in _rankings(frame, positive)]
    return float(np.mean(scored)) if scored else math.nan


def bootstrap_auc(
    frame: pd.DataFrame, positive: str, *, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of `frame_auc`: patients drawn with replacement within each label.

    `frame` has a row a patient, or a row an image whose patient is then drawn as a whole.
    """
    found = bootstrap_aucs([frame], positive, draws=draws, seed=seed)[0]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_aucs(frames: list[pd.DataFrame], positive: str, *, draws: int, seed: int) -> Floats:
    """`frame_auc` of every frame in every draw: (frames, draws).

    All frames hold the same patients in the same order and see the same draws.
    """
    if math.isnan(frame_auc(frames[0], positive)):
        found = sorted(map(str, frames[0]["label"].unique()))
        raise DataError(f"an AUC needs rows of two classes or more, there are only {found}")
    codes, strata = patient_strata(frames[0])
    rankings = [
        [_Ranking(positives, score) for positives, score in _rankings(frame, positive)]
        for frame in frames
    ]
    parts = []
    for weights in patient_weights(strata, rows=len(codes), draws=draws, seed=seed):
        rows = weights[:, codes] if len(codes) != weights.shape[1] else weights
        means = [np.mean([each.auc(rows) for each in group], axis=0) for group in rankings]
        parts.append(np.stack(means))
    return np.concatenate(parts, axis=1)


def compare(
    frame: pd.DataFrame, baseline: pd.DataFrame, positive: str, *, draws: int = 2000, seed: int = 0
) -> Comparison:
    """Difference in `frame_auc` of two models scored on the same patients, paired by group_id."""
    keys = ["group_id", "image_id"] if "image_id" in frame else ["group_id"]
    first = frame.sort_values(keys, ignore_index=True)
    second = baseline.sort_values(keys, ignore_index=True)
    if not first[[*keys, "label"]].equals(second[[*keys, "label"]]):
        raise DataError("the model and its baseline were not scored on the same labelled patients")
    drawn = bootstrap_aucs([first, second], positive, draws=draws, seed=seed)
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    delta = frame_auc(first, positive) - frame_auc(second, positive)
    return Comparison(delta, float(low), float(high), _delong_p(first, second, positive, delta))


def influence(positive: ArrayLike, score: ArrayLike) -> Floats:
    """Influence of every row on the AUC (N,): DeLong's structural components, centred and scaled.

    A positive row i has (V10_i - AUC) / n_positive, a negative one (V01_i - AUC) / n_negative
    (DeLong et al. 1988, equations 4 and 5), by ranks in O(N log N) (Sun and Xu 2014).
    """
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    above, below = np.sort(score[positive]), np.sort(score[~positive])
    out = np.empty(len(score))
    wins = _rank(below, score[positive]) / len(below)
    losses = 1 - _rank(above, score[~positive]) / len(above)
    centre = auc(positive, score)
    out[positive] = (wins - centre) / len(above)
    out[~positive] = (losses - centre) / len(below)
    return out


def patient_weights(
    strata: NDArray[np.int64], *, rows: int, draws: int, seed: int
) -> Iterator[Floats]:
    """How often each patient is drawn: blocks (<= draws, patients), each stratum keeping its size.

    `strata` (patients,) numbers each patient's stratum; `rows` is how many rows a block will be
    spread over. Draw i is the same for equal strata, draws and seed.
    """
    rng = np.random.default_rng(derive(seed, "bootstrap"))
    members = [np.flatnonzero(strata == each) for each in np.unique(strata)]
    block = max(1, _CHUNK // max(rows, len(strata)))
    for start in range(0, draws, block):
        size = min(block, draws - start)
        weights = np.empty((size, len(strata)))
        offsets = np.arange(size)[:, None]
        for mine in members:
            taken = rng.integers(len(mine), size=(size, len(mine))) + offsets * len(mine)
            counted = np.bincount(taken.ravel(), minlength=size * len(mine))
            weights[:, mine] = counted.reshape(size, -1)
        yield weights


class _Ranking:
    """Scores sorted once, so that the AUC under any row weights is two cumulative sums away."""

    def __init__(self, positive: NDArray[np.bool_], score: Floats) -> None:
        negatives = np.flatnonzero(~positive)
        self._negatives = negatives[np.argsort(score[negatives], kind="stable")]
        self._positives = np.flatnonzero(positive)
        ordered = score[self._negatives]
        self._below = np.searchsorted(ordered, score[self._positives], "left")
        self._not_above = np.searchsorted(ordered, score[self._positives], "right")

    def auc(self, weights: Floats) -> Floats:
        """AUC of every draw (draws,) for `weights` (draws, rows)."""
        running = np.zeros((len(weights), len(self._negatives) + 1))
        np.cumsum(weights[:, self._negatives], axis=1, out=running[:, 1:])
        mine = weights[:, self._positives]
        wins = np.einsum("dp,dp->d", mine, running[:, self._below])
        wins += np.einsum("dp,dp->d", mine, running[:, self._not_above])
        # strata keep their size, so both sides are present in every draw
        return np.asarray(wins / (2 * mine.sum(axis=1) * running[:, -1]))


def _rankings(frame: pd.DataFrame, positive: str) -> list[tuple[NDArray[np.bool_], Floats]]:
    """The (is positive, score) pairs, both sides present, that a frame's AUC averages over."""
    classes = classes_of(frame)
    ranked = [positive] if len(classes) == 2 else classes
    pairs = [
        ((frame["label"] == each).to_numpy(bool), frame[f"score/{each}"].to_numpy(np.float64))
        for each in ranked
    ]
    return [(side, score) for side, score in pairs if side.any() and not side.all()]


def patient_strata(frame: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Patient number of every row, and stratum of every patient (the set of its labels)."""
    codes, _ = pd.factorize(frame["group_id"])
    labels, _ = pd.factorize(frame["label"], sort=True)
    pairs = np.unique(np.stack([codes, labels], axis=1), axis=0)
    strata = np.bincount(pairs[:, 0], weights=2.0 ** pairs[:, 1])  # one bit a label
    return codes.astype(np.int64), strata.astype(np.int64)


def _delong_p(first: pd.DataFrame, second: pd.DataFrame, positive: str, delta: float) -> float:
    """Two-sided p of `delta` from the variance of the paired influences, summed by patient.

    With two classes and a row a patient this is DeLong's test to the last digit; for a macro mean
    the influences of its classes are averaged, the strata being the labels.
    """
    both = zip(_rankings(first, positive), _rankings(second, positive), strict=True)
    effects = [influence(*one) - influence(*other) for one, other in both]
    codes, strata = patient_strata(first)
    patient = np.bincount(codes, weights=np.mean(effects, axis=0))
    variance = 0.0
    for each in np.unique(strata):
        mine = patient[strata == each]
        variance += len(mine) * float(np.var(mine, ddof=1)) if len(mine) > 1 else math.inf
    if variance < 1e-18:  # no patient moves the difference
        return 1.0 if abs(delta) < 1e-12 else 0.0
    return math.erfc(abs(delta) / math.sqrt(2 * variance))


def _rank(ordered: Floats, values: Floats) -> Floats:
    """How many of the sorted `ordered` lie below each of `values`, equal ones counted half."""
    below = np.searchsorted(ordered, values, "left")
    return np.asarray((below + np.searchsorted(ordered, values, "right")) / 2)
