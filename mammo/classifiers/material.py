"""What one classifier learns from and is judged by: rows of a dataset, checked and recorded."""

import hashlib
import json
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammo.classifiers.recipe import Recipe
from mammo.classifiers.scores import CLASS_AUC, check_labels, mode_of
from mammo.data.dataset import Dataset
from mammo.data.partition import draw_patients
from mammo.data.sets import Sets, set_keys
from mammo.errors import ConfigError, DataError
from mammo.evaluation.predictions import unseen
from mammo.models import SavedModel

log = logging.getLogger("mammo")
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Material:
    """What one run learns from and is judged by, as rows of `data`."""

    data: Dataset
    train: Rows  # real and synthetic
    val: Rows
    scored: Rows  # empty on a hold-out
    fold: str  # none or a number

    @property
    def fold_number(self) -> int:
        return -1 if self.fold == "none" else int(self.fold)

    @property
    def real_training_images(self) -> int:
        return int((~self.data.manifest["is_synthetic"].to_numpy()[self.train]).sum())


def check_material(material: Material, recipe: Recipe) -> None:
    """Refuse rows that cannot train or cannot be judged, before the network is built."""
    classes = material.data.classes
    for monitor in recipe.monitors:
        mode_of(monitor)
        named = monitor.removeprefix(CLASS_AUC)
        if monitor.startswith(CLASS_AUC) and (named not in classes.names or len(classes.names) < 3):
            raise ConfigError(
                f"monitor {monitor!r} is no metric of the classes {', '.join(classes.names)}; "
                "monitor val/auc"
            )
        if monitor.startswith(CLASS_AUC):
            validated = material.data.manifest["label"].iloc[material.val]
            if named not in set(validated):
                raise DataError(
                    f"monitor {monitor!r}: no validation image is {named}; monitor val/auc"
                )
    check_training(material, recipe, "training", "preprocess more images")
    check_held_out(material, recipe.aggregate)


def check_held_out(material: Material, how: str) -> None:
    """Refuse validation and scored rows that cannot judge.

    `how` a patient's images become one score: mean, max or none.
    """
    classes, fold = material.data.classes, material.fold_number
    scored = "scored" if fold < 0 else f"scored (fold {fold})"
    for rows, what, remedy in (
        (material.val, "validation", "raise val_fraction"),
        (material.scored, scored, "preprocess with fewer folds"),
    ):
        if len(rows) or what == "validation":
            labels = material.data.manifest["label"].iloc[rows]
            check_labels(labels, classes.positive, what, remedy)
            patients = material.data.manifest["group_id"].iloc[rows]
            if how != "none" and (labels == classes.positive).groupby(patients).any().all():
                raise DataError(
                    f"every patient of the {what} rows has an image of class "
                    f"{classes.positive!r}, which is no label of a patient then; use aggregate none"
                )
    held_out = material.data.manifest.iloc[np.concatenate([material.val, material.scored])]
    if held_out["is_synthetic"].any():
        raise DataError("synthetic images among the validation or scored rows; preprocess again")


def check_training(material: Material, recipe: Recipe, what: str, remedy: str) -> None:
    """Refuse training rows whose samples are not of the positive class and of another."""
    data, rows = material.data, material.train
    ids = sample_labels(data, rows, sets_of(data, rows, recipe))
    check_labels(np.asarray(data.classes.names)[ids], data.classes.positive, what, remedy)


def check_ground(model: SavedModel, material: Material) -> None:
    """Refuse to start from a classifier that has seen a patient who validates or is scored."""
    data = material.data
    tested = np.flatnonzero((data.manifest["split"] == "test").to_numpy())
    held_out = np.unique(np.concatenate([material.val, material.scored, tested]))
    seen = np.setdiff1d(held_out, unseen(model, data, held_out))
    if len(seen):
        frame = data.manifest.iloc[seen]
        raise DataError(
            f"weights: classifier {model.run_id} was trained on {frame['group_id'].nunique()} of "
            f"the {data.manifest.iloc[held_out]['group_id'].nunique()} held-out patients of "
            f"dataset {data.name} (patient {frame.iloc[0]['group_id']}); give one trained on the "
            "training rows of this dataset (of this fold: --folds) alone"
        )


def limited(data: Dataset, rows: Rows, limit: int, seed: int) -> Rows:
    """Those of `rows` that show `limit` patients (0: all), drawn so that class shares stay."""
    frame = data.manifest.iloc[rows]
    if not limit or limit >= frame["group_id"].nunique():
        return rows
    chosen = draw_patients(frame, limit, seed, positive=data.classes.positive)
    found: Rows = rows[frame["group_id"].isin(chosen).to_numpy()]
    return found


def overfitting(material: Material, share: float, seed: int) -> Material:
    """The real images of `share` of the training patients, to train and to validate on.

    A network that cannot learn them by heart is broken, or its labels are; nothing else follows
    from the numbers of such a run.
    """
    if not share:
        return material
    real = material.train[~material.data.manifest["is_synthetic"].to_numpy()[material.train]]
    patients = material.data.manifest["group_id"].iloc[real].nunique()
    count = max(len(material.data.classes.names), math.ceil(share * patients))
    rows = limited(material.data, real, count, seed)
    log.warning(
        "overfit %g: %d images train and validate; the numbers tell whether the network can learn "
        "them by heart, and nothing else",
        *(share, len(rows)),
    )
    return replace(material, train=rows, val=rows)


def sets_of(data: Dataset, rows: Rows, recipe: Recipe) -> Sets | None:
    """Which positions in `rows` are a sample together; None where each is one by itself."""
    if recipe.views == "none":
        return None
    return Sets.of(set_keys(data.manifest.iloc[rows], recipe.views_of))


def single_images(material: Material, recipe: Recipe) -> bool:
    """Whether a training sample may be a single image."""
    sets = sets_of(material.data, material.train, recipe)
    return sets is None or bool((sets.sizes == 1).any())


def sample_labels(data: Dataset, rows: Rows, sets: Sets | None) -> Rows:
    """Class ids of the samples that `rows` make."""
    ids: Rows = data.label_ids()[rows]
    return ids if sets is None else sets.labels(ids, data.classes)


def class_counts(material: Material, recipe: Recipe) -> list[int]:
    """Training samples of each class, in the order of the class ids."""
    data, rows = material.data, material.train
    ids = sample_labels(data, rows, sets_of(data, rows, recipe))
    counts: list[int] = np.bincount(ids, minlength=len(data.classes.names)).tolist()
    return counts


def rows_digest(data: Dataset, rows: Rows) -> str:
    """Digest of the images in `rows` and their labels, whatever their order."""
    frame = data.manifest.iloc[rows]
    lines = sorted(frame["image_id"] + "," + frame["sha256"] + "," + frame["label"])
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def write_partition(material: Material, path: Path, *, val_fraction: float) -> Path:
    """Write which images and patients (hashed ids) validated and were scored, as JSON."""
    frame = material.data.manifest
    parts = {
        name: {
            "images": sorted(frame["image_id"].iloc[rows]),
            "patients": sorted(set(frame["group_id"].iloc[rows])),
        }
        for name, rows in (("val", material.val), ("scored", material.scored))
    }
    found = {
        "data": material.data.digest,
        "fold": material.fold,
        "val_fraction": val_fraction,
        "split_seed": material.data.about.get("split_seed", 0),
        "train": {
            "images": len(material.train),
            "digest": rows_digest(material.data, material.train),
        },
        **parts,
    }
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return path
