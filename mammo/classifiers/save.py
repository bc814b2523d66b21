"""Saves a trained classifier with its operating points and where it came from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mammo.classifiers.material import Material, rows_digest
from mammo.classifiers.module import ClassifierModule
from mammo.classifiers.recipe import Recipe
from mammo.classifiers.weights import Weights
from mammo.data.dataset import Dataset
from mammo.evaluation.operating import chosen
from mammo.evaluation.ranking import aggregate
from mammo.evaluation.verdict import temperature_of
from mammo.models import SavedModel, save_model
from mammo.run import Run

# What a dataset says of the preparation of its images (see data.prepare.Recipe.of)
PREPARATION = ("intensity", "dtype", "crop", "frames", "exclude")


def save(
    tracked: Run,
    material: Material,
    recipe: Recipe,
    weights: Weights,
    module: ClassifierModule,
    *,
    seed: int,
    folder: Path,
    val: pd.DataFrame,
    history: Sequence[Mapping[str, float]],
    phases: Sequence[Mapping[str, Any]],
) -> SavedModel:
    """Save the module's network with all that prediction and the leakage guards need.

    `val` are its predictions of the validation rows; they choose the operating points and the
    temperature. `history` ends with the metrics of its epoch, `phases` say what it was trained
    on, one after the other.
    """
    data, network = material.data, module.network
    training, seen = data.manifest.iloc[material.train], data.generator_training
    patients = aggregate(val, data.classes.positive, recipe.aggregate)
    runs = sorted(set(training.loc[training["is_synthetic"], "generator_run_id"]))
    seen = seen[seen["run_id"].isin(runs)]
    if weights.model is not None:
        training, seen, runs = _with_those_of(weights.model, training, seen, runs, data)
    about: dict[str, Any] = {
        "model_name": recipe.model_name,
        "head": recipe.head,
        "activation": module.loss.activation,
        "normalisation": {
            "mean": network.mean.flatten().tolist(),
            "sd": network.sd.flatten().tolist(),
        },
        "views": recipe.views,
        "views_of": recipe.views_of,
        "aggregate": recipe.aggregate,
        "thresholds": thresholds(patients, data.classes.positive),
        "temperature": temperature_of(patients),  # of a patient's scores
        "commit": tracked.commit(),
        "epoch": len(history),
        "metrics": dict(history[-1]),
        "phases": [dict(phase) for phase in phases],
        "overfit": recipe.overfit,
        "fold": material.fold,
        "seed": seed,
        "weights": {"source": weights.source, "sha256": weights.sha256},
        "train_images": len(material.train),
        "train_digest": rows_digest(material.data, material.train),
        "generators": runs,
        "data_digest": data.digest,
        "data_name": data.name,
        **{key: data.about.get(key) for key in ("salt", "split_seed")},
        **{key: data.about[key] for key in PREPARATION if key in data.about},
    }
    # the file format refuses tensors that share memory
    tensors = {name: value.detach().clone() for name, value in network.state_dict().items()}
    return save_model(
        folder,
        kind="classifier",
        run_id=tracked.id,
        classes=data.classes,
        shape=data.shape,
        weights=tensors,
        training=training,
        generator_training=seen,
        settings={**vars(recipe), "weights": weights.source, "seed": seed},
        about=about,
    )


def _with_those_of(
    parent: SavedModel,
    training: pd.DataFrame,
    seen: pd.DataFrame,
    runs: list[str],
    data: Dataset,
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Training rows, what generators saw and their runs, with those of the parent: seen too."""
    own = training.assign(salt=str(data.about.get("salt") or ""))
    columns = ["group_id", "sha256", "is_synthetic", "salt"]
    both = [own[columns], parent.training[columns]]
    return (
        pd.concat(both, ignore_index=True).drop_duplicates(ignore_index=True),
        pd.concat([seen, parent.generator_training], ignore_index=True).drop_duplicates(),
        sorted({*runs, *parent.about["generators"]}),
    )


def thresholds(patients: pd.DataFrame, positive: str) -> dict[str, float]:
    """Operating points of a patient's positive score, chosen on validation patients, by rule."""
    found = chosen(patients["label"] == positive, patients[f"score/{positive}"])
    return {"balanced": found.pop("balanced_accuracy"), **found}
