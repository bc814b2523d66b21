"""Which rows a model may be judged on, and its predictions for them."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.classes import ClassMap
from mammo.data.dataset import Dataset
from mammo.data.sets import Sets, set_keys
from mammo.data.splits import NO_FOLD, Partition, fold_numbers, training_rows
from mammo.errors import DataError
from mammo.models import SavedModel

LOG = logging.getLogger("mammo")
Rows = NDArray[np.int64]
CARRIED = ("image_id", "group_id", "dataset", "laterality")  # of the manifest
TOLD = ("uncertainty", "attention")  # of an image, beside its scores and logits
TRAINED_ON = "trained_on"  # column: real images that the run of the predictions learned from


class Predicts(Protocol):
    """A loaded classifier, as far as an evaluation needs it."""

    @property
    def saved(self) -> SavedModel: ...

    @property
    def aggregate(self) -> str:
        """How it makes one score of a patient's images."""

    @property
    def threshold(self) -> float:
        """Chosen on the validation patients of its own training."""

    def tell(
        self, images: NDArray[np.float32], *, keys: NDArray[Any] | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Columns (N,) of `images` (N, C, H, W) in [0, 1]: `score/<class>` of each, and others.

        Images with the same of `keys` (N,) are one sample, for a model of several views.
        """


def evaluated_rows(data: Dataset, split: str, about: Mapping[str, Any]) -> Rows:
    """Rows of real images that `split` names: test, val, train, or `fold`, the model's scored one.

    `about` is the model's model.json: of a model trained on a fold, train and val are the rows
    that it was trained on and its inner validation.
    """
    fold, frame = fold_of(about), data.manifest
    if split == "fold":
        if fold == NO_FOLD:
            raise DataError("split 'fold' needs a model that was trained on a fold; use split=test")
        return _partition(data, about).scored
    if fold != NO_FOLD and split != "test":
        part = _partition(data, about)
        return part.train if split == "train" else part.val
    found = np.flatnonzero((frame["split"] == split) & ~frame["is_synthetic"])
    if not len(found):
        remedy = {
            "test": "preprocess it with test_fraction above 0, or evaluate a fold with split=fold",
            "val": "preprocess it with val_fraction above 0",
            "train": "name another split",
        }[split]
        raise DataError(f"dataset {data.name} has no {split} rows; {remedy}")
    return found


def validation_rows(data: Dataset, about: Mapping[str, Any]) -> Rows:
    """Rows that may choose a threshold: the model's inner validation, or the split val, or none."""
    frame = data.manifest
    if fold_of(about) in map(str, fold_numbers(data)):
        return _partition(data, about).val
    return np.flatnonzero((frame["split"] == "val") & ~frame["is_synthetic"])


def fold_of(about: Mapping[str, Any]) -> str:
    """The fold that a model was not trained on, as text; "none" for a hold-out."""
    return str(about.get("fold", NO_FOLD))


def refuse_seen(saved: SavedModel, data: Dataset, rows: Rows) -> str:
    """Refuse rows of a patient that the model or a generator it learned from was trained on.

    Returns how that was compared. Patients can be compared where both sides salted their ids
    alike; pixels always can.
    """
    frame = data.manifest.iloc[rows]
    known = _known(saved, data)
    for each in known:
        what = {"group_id": "patient", "sha256": "image", "mask_sha256": "mask"}[each.column]
        seen = frame[frame[each.column].isin(each.values)]
        if len(seen):
            raise DataError(
                f"{what} {seen.iloc[0][each.column]} of dataset {data.name} was in the training "
                f"of {each.whose} {saved.run_id or saved.folder} "
                f"({seen[each.column].nunique()} such {what}s); "
                "evaluate on patients it has not seen"
            )
    same_salt = any(each.whose == "model" and each.column == "group_id" for each in known)
    how = "by patient and by pixels" if same_salt else "by pixels alone, for the salts differ"
    return how + _of_generators(saved, data)


def unseen(saved: SavedModel, data: Dataset, rows: Rows) -> Rows:
    """Those of `rows` that show no patient and no image of the model's or its generators' training.

    These are real rows whose scores are as good as those of any new patient.
    """
    frame = data.manifest.iloc[rows]
    for known in _known(saved, data):
        frame = frame[~frame[known.column].isin(known.values)]
    return np.asarray(frame.index, np.int64)


class _Known(NamedTuple):
    """Values of a manifest's column that were in the training of a model or its generators."""

    whose: str
    column: str
    values: set[str]


def _known(saved: SavedModel, data: Dataset) -> list[_Known]:
    """What the model has learned from, directly or not, that can be compared with `data`."""
    salt = _salt(data)
    trained = saved.training[~saved.training["is_synthetic"]]
    made = saved.generator_training
    patients = made[(made["salt"] == salt) & (salt != "")]
    pixels = set(made["sha256"]) - {""}  # of images, and of masks that were drawn around
    found = [
        _Known("model", "sha256", set(trained["sha256"])),
        _Known("a generator behind model", "sha256", pixels),
        _Known("a generator behind model", "mask_sha256", pixels),
        _Known("a generator behind model", "group_id", set(patients["group_id"])),
    ]
    alike = trained[trained["salt"] == salt]
    if salt and len(alike):
        found.insert(0, _Known("model", "group_id", set(alike["group_id"])))
    return found


def unrecorded(saved: SavedModel) -> list[str]:
    """Runs of generators behind the model of whose training not all is recorded."""
    made = saved.generator_training
    silent = set(saved.about.get("generators", [])) - set(made["run_id"])
    return sorted(silent | set(made.loc[made["sha256"] == "", "run_id"]))


def _of_generators(saved: SavedModel, data: Dataset) -> str:
    """What the check of the generators behind a model's synthetic images rests on."""
    made, salt, unknown = saved.generator_training, _salt(data), unrecorded(saved)
    if unknown:
        LOG.warning(
            "what generators %s behind model %s (or the makers of their masks) were trained on is "
            "not recorded: nobody can tell whether they saw patients of %s",
            ", ".join(unknown),
            saved.run_id or saved.folder,
            data.name,
        )
        return f"; what {len(unknown)} of its generators saw is unknown"
    if not len(made):
        return ""
    same_salt = bool(salt) and bool((made["salt"] == salt).all())
    return "; its generators " + ("likewise" if same_salt else "by pixels alone")


def _salt(data: Dataset) -> str:
    return str(data.about.get("salt") or "")


def refuse_other_classes(saved: SavedModel, data: Dataset) -> None:
    """Refuse data whose classes or image shape are not the model's."""
    if saved.classes != data.classes:
        raise DataError(
            f"the model's classes are {_told(saved.classes)}, "
            f"those of dataset {data.name} {_told(data.classes)}; they must be the same"
        )
    if saved.shape != data.shape:
        raise DataError(
            f"the model takes images of shape {saved.shape}, those of dataset {data.name} have "
            f"{data.shape}; preprocess it with the model's image_size and channels"
        )


def refuse_one_side(data: Dataset, rows: Rows, split: str) -> None:
    """Refuse rows that are all positive or none, before any of them is predicted."""
    positive = data.classes.positive
    found = int((data.manifest["label"].iloc[rows] == positive).sum())
    if found in (0, len(rows)):
        raise DataError(
            f"{found} of the {len(rows)} {split} images of dataset {data.name} are {positive}; "
            f"both {positive} and other patients are needed: name another split"
        )


def predict(
    classifier: Predicts, data: Dataset, rows: Rows, *, split: str, batch_size: int
) -> pd.DataFrame:
    """Predictions frame of `rows`, read in batches from the memory map."""
    names = data.classes.names
    told = _columns(classifier, data, rows, batch_size)
    scores = told[[f"score/{name}" for name in names]]
    about = classifier.saved.about
    fold = fold_of(about)
    frame = data.manifest.loc[rows, [*CARRIED]].reset_index(drop=True)
    frame["split"], frame["fold"] = split, -1 if fold == NO_FOLD else int(fold)
    frame["seed"] = int(about.get("settings", {}).get("seed", 0))
    frame["label"] = data.manifest["label"].to_numpy()[rows]
    frame["label_id"] = data.label_ids()[rows]
    frame = frame.join(scores)
    frame["pred"] = np.asarray(names, object)[scores.to_numpy().argmax(axis=1)]
    return frame.join(told.drop(columns=scores.columns))


def views_of(about: Mapping[str, Any]) -> str:
    """Whose images a model pools, by `mammo.data.UNITS`; empty where it pools none."""
    return str(about["views_of"]) if about.get("views", "none") != "none" else ""


def _columns(classifier: Predicts, data: Dataset, rows: Rows, batch_size: int) -> pd.DataFrame:
    """What the classifier tells of `rows`, of whole sets at a time where it pools them."""
    unit = views_of(classifier.saved.about)
    if not unit:
        parts = [
            pd.DataFrame(classifier.tell(data.images(rows[start : start + batch_size])))
            for start in range(0, max(1, len(rows)), batch_size)
        ]
        return pd.concat(parts, ignore_index=True)
    keys = set_keys(data.manifest.iloc[rows], unit)
    sets = Sets.of(keys)
    batch = (np.cumsum(sets.sizes) - 1) // batch_size  # that holds the last image of each set
    parts = []
    for chosen in np.split(np.arange(len(sets)), np.flatnonzero(np.diff(batch)) + 1):
        images, _ = sets.pick(chosen)
        told = classifier.tell(data.images(rows[images]), keys=keys[images])
        parts.append(pd.DataFrame(told, index=images))
    return pd.concat(parts).sort_index()


def _partition(data: Dataset, about: Mapping[str, Any]) -> Partition:
    given = about.get("settings", {}).get("val_fraction")
    extra = {} if given is None else {"val_fraction": float(given)}
    return training_rows(data, fold=fold_of(about), **extra)


def _told(classes: ClassMap) -> str:
    return f"{'/'.join(classes.names)} (positive {classes.positive}, by {classes.label_kind})"
