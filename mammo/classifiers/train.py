"""Trains one classifier on one partition: fresh network, fit, operating points, saved model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from mammo.classifiers.backbone import Network, build
from mammo.classifiers.changing import make_changing
from mammo.classifiers.features import Batches, Features, serve
from mammo.classifiers.losses import make_loss
from mammo.classifiers.material import Material, Rows, check_material, class_counts
from mammo.classifiers.module import ClassifierModule
from mammo.classifiers.plans import FINETUNES, OPTIMIZERS
from mammo.classifiers.recipe import Recipe
from mammo.classifiers.save import save
from mammo.classifiers.scores import judge, mode_of, predictions
from mammo.classifiers.weights import Weights
from mammo.data.classes import ClassMap
from mammo.data.loading import ordered_batches, training_batches
from mammo.data.samplers import SAMPLERS
from mammo.models import SavedModel
from mammo.run import Run
from mammo.seeds import derive
from mammo.training import choose_device, fit, read_checkpoint


@dataclass(frozen=True)
class Trained:
    """One trained classifier, its metrics and its predictions of validation and scored rows."""

    saved: SavedModel
    metrics: dict[str, float]
    history: list[dict[str, float]]
    val: pd.DataFrame
    scored: pd.DataFrame


def train_classifier(
    tracked: Run,
    material: Material,
    recipe: Recipe,
    weights: Weights,
    features: Features,
    *,
    seed: int,
) -> Trained:
    """Train a fresh classifier by `recipe`; every choice is made on the validation rows.

    `features` remembers those of a frozen backbone from one run of the recipe to the next.
    """
    classes = material.data.classes
    check_material(material, recipe.monitor)
    loss = make_loss(
        recipe.loss,
        {**vars(recipe), "counts": class_counts(material), "positive": classes.positive_id},
    )
    network = build(
        recipe.model_name,
        shape=material.data.shape,
        classes=loss.per_class * len(classes.names),
        dropout=recipe.dropout,
        weights=weights.tensors,
        source=weights.source,
        seed=derive(seed, "weights"),
    )
    # before the batches: a plan that freezes the backbone lets its features be computed once
    groups = FINETUNES[recipe.finetune](
        network, lr=recipe.lr, backbone_lr_factor=recipe.backbone_lr_factor
    )
    change = make_changing(vars(recipe), classes.names)
    train, val = _batches(network, material, recipe, features, seed, as_they_are=change.nothing)
    module = ClassifierModule(
        network,
        loss,
        augment=change,
        judge=_judge(material, recipe, seed),
        optimizer=partial(OPTIMIZERS[recipe.optimizer], weight_decay=recipe.weight_decay),
        groups=groups,
        total_steps=recipe.epochs * len(train),
    )
    fitted = fit(
        module,
        train=train,
        val=val,
        tracked=tracked,
        epochs=recipe.epochs,
        seed=seed,
        monitor=recipe.monitor,
        mode=mode_of(recipe.monitor),
        patience=recipe.patience,
        min_delta=recipe.min_delta,
        device=recipe.device,
        precision=recipe.precision,
    )
    chosen: dict[str, float] = read_checkpoint(fitted.best)["history"][-1]
    best = {f"best/{name}": value for name, value in chosen.items() if name.startswith("val/")}
    predict = partial(_predict, module, material, recipe, features, seed)
    of_val = predict(material.val, "val")
    saved = save(tracked, material, recipe, weights, module, seed=seed, val=of_val)
    of_scored = predict(material.scored, "scored")
    return Trained(
        saved,
        metrics={**best, **_fold_metrics(of_scored, classes, recipe.aggregate)},
        history=module.history,
        val=of_val,
        scored=of_scored,
    )


def _batches(
    network: Network,
    material: Material,
    recipe: Recipe,
    features: Features,
    seed: int,
    *,
    as_they_are: bool,
) -> tuple[Batches, Batches]:
    """Training and validation batches: images, or features where those never change."""
    size = recipe.batch_size
    labels = material.data.label_ids()[material.train]
    draw = SAMPLERS.bound(
        recipe.sampler, {**vars(recipe), "positive": material.data.classes.positive_id}
    )

    def order(epoch: int) -> Rows:
        positions: Rows = draw(labels, seed, epoch)
        return positions

    images = training_batches(
        material.data, material.train, batch_size=size, order=order, workers=recipe.workers
    )
    if not network.frozen:
        return images, ordered_batches(material.data, material.val, batch_size=size)
    device = choose_device(recipe.device)
    train = features.of(network, material.data, material.train, device)
    network.scale_features(train["features"].to(network.feature_mean.device))
    val = features.of(network, material.data, material.val, device)
    return (
        serve(train, batch_size=size, order=order) if as_they_are else images,
        serve(val, batch_size=size, order=lambda epoch: np.arange(len(material.val))),
    )


def _judge(
    material: Material, recipe: Recipe, seed: int
) -> Callable[[Rows, NDArray[np.float64]], dict[str, float]]:
    def of_epoch(rows: Rows, scores: NDArray[np.float64]) -> dict[str, float]:
        frame = predictions(
            material.data, rows, scores, split="val", fold=material.fold_number, seed=seed
        )
        return judge(frame, material.data.classes, recipe.aggregate)

    return of_epoch


def _predict(
    module: ClassifierModule,
    material: Material,
    recipe: Recipe,
    features: Features,
    seed: int,
    rows: Rows,
    split: str,
) -> pd.DataFrame:
    """Predictions of `rows` by the chosen weights."""
    device = choose_device(recipe.device)
    network = module.network.eval().to(device)
    if network.frozen:
        found = features.of(network, material.data, rows, device)["features"]
        parts = [module.outputs({"features": found.to(device)})]
    else:
        batches = ordered_batches(material.data, rows, batch_size=recipe.batch_size)
        parts = [module.outputs({"image": batch["image"].to(device)}) for batch in batches]
    width = module.loss.per_class * len(material.data.classes.names)
    outputs, activation = torch.cat([torch.empty(0, width), *parts]), module.activation
    told = activation.columns(outputs, material.data.classes.names)
    return predictions(
        material.data,
        rows,
        np.stack([told[f"score/{name}"] for name in material.data.classes.names], axis=1),
        told=told,
        split=split,
        fold=material.fold_number,
        seed=seed,
    )


def _fold_metrics(frame: pd.DataFrame, classes: ClassMap, how: str) -> dict[str, float]:
    if not len(frame):
        return {}
    return {f"fold/{name}": value for name, value in judge(frame, classes, how).items()}
