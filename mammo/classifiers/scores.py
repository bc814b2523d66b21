"""Predictions of a classifier as a table, and the numbers that judge an epoch by them."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mammo.data.classes import ClassMap
from mammo.data.dataset import Dataset
from mammo.errors import ConfigError, DataError
from mammo.evaluation import better
from mammo.evaluation.predictions import CARRIED
from mammo.evaluation.ranking import aggregate, class_aucs, frame_auc, pr_auc

if TYPE_CHECKING:
    from collections.abc import Mapping

# Metrics that an epoch has, and that may choose it
MONITORS = (
    *("train/loss", "val/loss", "val/auc", "val/auc_image", "val/pr_auc"),
    *("val/balanced_accuracy", "val/sensitivity", "val/specificity", "val/f1"),
)
CLASS_AUC = "val/auc/"  # and a class, where there are more than two


def mode_of(monitor: str) -> str:
    """min or max, whichever is better; ConfigError for a metric that no epoch has."""
    if monitor not in MONITORS and not monitor.startswith(CLASS_AUC):
        raise ConfigError(
            f"unknown monitor {monitor!r}; choose one of {', '.join(MONITORS)} or "
            f"{CLASS_AUC}<class>"
        )
    return better(monitor)


def predictions(
    data: Dataset,
    rows: NDArray[np.int64],
    scores: NDArray[np.float64],
    *,
    split: str,
    fold: int,
    seed: int,
    told: "Mapping[str, NDArray[np.float64]] | None" = None,
) -> pd.DataFrame:
    """One row an image of `rows`, with its `scores` (len(rows), classes) that sum to 1.

    `told` are further columns, as logits and uncertainty.
    """
    names = data.classes.names
    frame = data.manifest.loc[rows, [*CARRIED]].reset_index(drop=True)
    frame["split"], frame["fold"], frame["seed"] = split, fold, seed
    frame["label"] = data.manifest["label"].to_numpy()[rows]
    frame["label_id"] = data.label_ids()[rows]
    for number, name in enumerate(names):
        frame[f"score/{name}"] = scores[:, number]
    frame["pred"] = np.asarray(names, object)[scores.argmax(axis=1)]
    return frame.assign(**{name: each for name, each in (told or {}).items() if name not in frame})


def judge(frame: pd.DataFrame, classes: ClassMap, how: str) -> dict[str, float]:
    """Metrics of a predictions frame by patient, and `auc_image` by image.

    A patient is called what its aggregated score is highest for. With more than two classes auc
    is the macro mean and auc/<class> each class against the rest; the other metrics are of the
    positive class, but balanced_accuracy is the mean recall over the classes present.
    """
    positive = classes.positive
    patients = aggregate(frame, positive, how)
    found = {
        "auc": frame_auc(patients, positive),
        "auc_image": frame_auc(frame, positive),
        "pr_auc": pr_auc(patients["label"] == positive, patients[f"score/{positive}"]),
        **_called(patients, positive),
    }
    if len(classes.names) > 2:
        found |= {f"auc/{name}": value for name, value in class_aucs(patients).items()}
    return found


def check_labels(labels: ArrayLike, positive: str, what: str, remedy: str) -> None:
    """Refuse rows on which no AUC of the positive class exists."""
    present = sorted(set(np.asarray(labels).tolist()))
    if positive not in present or len(present) < 2:
        raise DataError(
            f"the {what} rows hold only {', '.join(present) or 'nothing'}; an AUC needs "
            f"{positive!r} and another class: {remedy}"
        )


def _called(patients: pd.DataFrame, positive: str) -> dict[str, float]:
    truth = (patients["label"] == positive).to_numpy()
    called = (patients["pred"] == positive).to_numpy()
    hits = int(np.sum(truth & called))
    right = patients["pred"] == patients["label"]
    return {
        "balanced_accuracy": float(right.groupby(patients["label"]).mean().mean()),
        "sensitivity": _ratio(hits, int(truth.sum())),
        "specificity": _ratio(int(np.sum(~truth & ~called)), int(np.sum(~truth))),
        # the harmonic mean of precision and recall, 0 where nothing was hit
        "f1": 2 * hits / max(1, int(truth.sum() + called.sum())),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def finite(values: "Mapping[str, float]") -> dict[str, float]:
    """The values that exist: a metric without its class is left out, not logged as nan."""
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}
