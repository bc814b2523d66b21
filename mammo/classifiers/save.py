"""Saves a trained classifier with its operating points and where it came from."""

from typing import Any

import pandas as pd

from mammo.classifiers.material import Material, rows_digest
from mammo.classifiers.module import ClassifierModule
from mammo.classifiers.recipe import Recipe
from mammo.classifiers.weights import Weights
from mammo.evaluation.operating import at_specificity, most_balanced
from mammo.evaluation.ranking import aggregate
from mammo.models import SavedModel, save_model
from mammo.run import Run

SPECIFICITY = 0.9  # of the second operating point
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
    val: pd.DataFrame,
) -> SavedModel:
    """Save the module's network with all that prediction and the leakage guards need.

    `val` are its predictions of the validation rows; they choose the operating points.
    """
    data, network = material.data, module.network
    training, seen = data.manifest.iloc[material.train], data.generator_training
    runs = sorted(set(training.loc[training["is_synthetic"], "generator_run_id"]))
    about: dict[str, Any] = {
        "model_name": recipe.model_name,
        "activation": module.loss.activation,
        "normalisation": {
            "mean": network.mean.flatten().tolist(),
            "sd": network.sd.flatten().tolist(),
        },
        "aggregate": recipe.aggregate,
        "thresholds": thresholds(val, data.classes.positive, recipe.aggregate),
        "temperature": 1.0,
        "fold": material.fold,
        "seed": seed,
        "weights": {"source": weights.source, "sha256": weights.sha256},
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


def thresholds(val: pd.DataFrame, positive: str, how: str) -> dict[str, float]:
    """Operating points of a patient's positive score, chosen on the validation predictions."""
    patients = aggregate(val, positive, how)
    truth, score = patients["label"] == positive, patients[f"score/{positive}"]
    return {
        "balanced": most_balanced(truth, score),
        f"specificity_{SPECIFICITY}": at_specificity(truth, score, specificity=SPECIFICITY),
    }
