"""Saves a trained classifier with its operating points and where it came from."""

from typing import Any

import pandas as pd

from mammo.classifiers.material import Material, rows_digest
from mammo.classifiers.module import ClassifierModule
from mammo.classifiers.recipe import Recipe
from mammo.classifiers.weights import Weights
from mammo.evaluation.operating import chosen
from mammo.evaluation.ranking import aggregate
from mammo.evaluation.verdict import temperature_of
from mammo.models import SavedModel, save_model
from mammo.run import Run


def save(
    tracked: Run,
    material: Material,
    recipe: Recipe,
    weights: Weights,
    module: ClassifierModule,
    *,
    seed: int,
    val: pd.DataFrame,
) -> SavedModel:
    """Save the module's network with all that prediction and the leakage guards need.

    `val` are its predictions of the validation rows; they choose the operating points and
    the temperature.
    """
    data, network = material.data, module.network
    training, seen = data.manifest.iloc[material.train], data.generator_training
    patients = aggregate(val, data.classes.positive, recipe.aggregate)
    runs = sorted(set(training.loc[training["is_synthetic"], "generator_run_id"]))
    about: dict[str, Any] = {
        "model_name": recipe.model_name,
        "activation": module.loss.activation,
        "normalisation": {
            "mean": network.mean.flatten().tolist(),
            "sd": network.sd.flatten().tolist(),
        },
        "aggregate": recipe.aggregate,
        "thresholds": thresholds(patients, data.classes.positive),
        "temperature": temperature_of(patients),  # of a patient's scores
        "fold": material.fold,
        "seed": seed,
        "weights": {"source": weights.source, "sha256": weights.sha256},
        "train_digest": rows_digest(material.data, material.train),
        "generators": runs,
        "data_digest": data.digest,
        "data_name": data.name,
        **{key: data.about.get(key) for key in ("salt", "split_seed", "intensity", "dtype")},
    }
    # the file format refuses tensors that share memory
    tensors = {name: value.detach().clone() for name, value in network.state_dict().items()}
    return save_model(
        tracked.folder / "model",
        kind="classifier",
        run_id=tracked.id,
        classes=data.classes,
        shape=data.shape,
        weights=tensors,
        training=training,
        generator_training=seen[seen["run_id"].isin(runs)],
        settings={**vars(recipe), "weights": weights.source, "seed": seed},
        about=about,
    )


def thresholds(patients: pd.DataFrame, positive: str) -> dict[str, float]:
    """Operating points of a patient's positive score, chosen on validation patients, by rule."""
    found = chosen(patients["label"] == positive, patients[f"score/{positive}"])
    return {"balanced": found.pop("balanced_accuracy"), **found}
