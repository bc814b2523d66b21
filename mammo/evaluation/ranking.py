"""Ranking quality of predictions by patient: areas under curves, and the AUC with its interval.

A predictions frame has one row an image with the columns image_id, group_id, label, label_id and
`score/<class>` for every class, in the order of the class ids. It may have dataset, laterality and
uncertainty, which means follow; other columns are kept.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mammo.data.sets import joint_labels
from mammo.errors import ConfigError, DataError
from mammo.evaluation import AGGREGATES
from mammo.evaluation.bootstrap import interval, patient_strata, patient_weights
from mammo.evaluation.weighted import MAX_FPR, Ranking

Floats = NDArray[np.float64]


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


def partial_auc(positive: ArrayLike, score: ArrayLike, *, max_fpr: float = MAX_FPR) -> float:
    """Area under the ROC curve up to a false positive rate of `max_fpr`, standardised.

    0.5 is guessing and 1 perfect (McClish 1989). nan when a side is empty.
    """
    positive = np.asarray(positive, bool)
    if positive.all() or not positive.any():
        return math.nan
    rows = np.arange(len(positive))
    found = Ranking(positive, score, rows).measure(np.ones((1, len(rows))), max_fpr=max_fpr)
    return float(found["partial_auc"][0])


def classes_of(frame: pd.DataFrame) -> list[str]:
    """Class names of a predictions frame, in the order of their ids."""
    return [str(name).removeprefix("score/") for name in frame if str(name).startswith("score/")]


def aggregate(
    frame: pd.DataFrame, positive: str, how: str = "mean", *, unit: Sequence[str] = ("group_id",)
) -> pd.DataFrame:
    """One row a patient from a predictions frame, sorted by group_id, with a column `images`.

    Scores: `mean` of the patient's images; `max` takes those of its image with the highest
    positive score, so that they still sum to 1; `none` keeps a row an image.
    Label: that of `joint_labels`.
    `unit` names the columns that make a row: group_id and laterality for a breast.
    """
    if how not in AGGREGATES:
        raise ConfigError(f"aggregate {how!r} is not one of {', '.join(AGGREGATES)}")
    classes, keys = classes_of(frame), list(unit)
    names = [f"score/{each}" for each in classes]
    if how == "none":
        return frame.assign(images=1).sort_values([*keys, "image_id"], ignore_index=True)
    means = [*names, *(["uncertainty"] if "uncertainty" in frame else [])]
    if how == "max":
        top = frame.sort_values([f"score/{positive}", "image_id"], kind="stable")
        scores = top.groupby(keys)[means].last()
    else:
        scores = frame.groupby(keys)[means].mean()
    votes = pd.get_dummies(frame["label"]).reindex(columns=classes, fill_value=0).astype("int64")
    counts = votes.groupby([frame[each] for each in keys]).sum().to_numpy()
    label_id = joint_labels(counts, classes.index(positive))
    others = [each for each in ("dataset", "split", "fold", "seed") if each in frame]
    out = frame.groupby(keys)[others].first()
    out["label"] = np.asarray(classes, object)[label_id]
    out["label_id"] = label_id
    out["images"] = counts.sum(axis=1)
    out = out.join(scores)
    out["pred"] = np.asarray(classes, object)[np.argmax(scores[names].to_numpy(), axis=1)]
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
    scored = [auc(*each) for each in sides(frame, positive)]
    return float(np.mean(scored)) if scored else math.nan


def sides(frame: pd.DataFrame, positive: str) -> list[tuple[NDArray[np.bool_], Floats]]:
    """The (is positive, score) pairs, both sides present, that a frame's AUC averages over."""
    return list(sides_by_class(frame, positive).values())


def sides_by_class(
    frame: pd.DataFrame, positive: str
) -> dict[str, tuple[NDArray[np.bool_], Floats]]:
    """The pairs of `sides` by class: the positive class, with more than two each of them."""
    classes = classes_of(frame)
    pairs = {
        each: ((frame["label"] == each).to_numpy(bool), frame[f"score/{each}"].to_numpy(np.float64))
        for each in ([positive] if len(classes) == 2 else classes)
    }
    return {name: pair for name, pair in pairs.items() if pair[0].any() and not pair[0].all()}


def bootstrap_auc(
    frame: pd.DataFrame, positive: str, *, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of `frame_auc`: patients drawn with replacement within each label.

    `frame` has a row a patient, or a row an image whose patient is then drawn as a whole.
    """
    found = bootstrap_aucs([frame], positive, draws=draws, seed=seed)[0]
    return interval(found, level)


def bootstrap_aucs(frames: list[pd.DataFrame], positive: str, *, draws: int, seed: int) -> Floats:
    """`frame_auc` of every frame in every draw: (frames, draws).

    All frames hold the same patients in the same order and see the same draws.
    """
    if math.isnan(frame_auc(frames[0], positive)):
        found = sorted(map(str, frames[0]["label"].unique()))
        raise DataError(f"an AUC needs rows of two classes or more, there are only {found}")
    codes, strata = patient_strata(frames[0])
    rankings = [
        [Ranking(positives, score, codes) for positives, score in sides(frame, positive)]
        for frame in frames
    ]
    parts = []
    for weights in patient_weights(strata, rows=len(codes), draws=draws, seed=seed):
        means = [np.mean([each.auc(weights) for each in group], axis=0) for group in rankings]
        parts.append(np.stack(means))
    return np.concatenate(parts, axis=1)
