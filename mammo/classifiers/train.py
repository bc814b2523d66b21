"""Trains one classifier on one partition: fresh network, fit, operating points, saved model."""

import logging
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.classifiers.backbone import build
from mammo.classifiers.blocks import check_single
from mammo.classifiers.features import Features
from mammo.classifiers.material import Material, Rows, check_material, single_images
from mammo.classifiers.module import ClassifierModule
from mammo.classifiers.phases import Fitting, loss_of, phases_of, said_of
from mammo.classifiers.plans import FINETUNES
from mammo.classifiers.recipe import Recipe
from mammo.classifiers.save import save
from mammo.classifiers.scores import judge, predictions
from mammo.classifiers.telling import keep, see, tell
from mammo.classifiers.weights import Weights
from mammo.data.classes import ClassMap
from mammo.data.loading import ordered_batches
from mammo.data.sets import set_keys
from mammo.evaluation.predictions import TRAINED_ON
from mammo.models import SavedModel
from mammo.run import Run
from mammo.seeds import derive
from mammo.training import choose_device, read_checkpoint
from mammo.training.devices import check_devices
from mammo.training.nodes import Work, across
from mammo.training.processes import Team

log = logging.getLogger("mammo")


@dataclass(frozen=True)
class Trained:
    """One trained classifier, its metrics and its predictions of validation and scored rows."""

    saved: SavedModel
    metrics: dict[str, float]
    history: list[dict[str, float]]
    val: pd.DataFrame
    scored: pd.DataFrame
    real_share: float  # of the training rows


def train_classifier(
    tracked: Run,
    material: Material,
    recipe: Recipe,
    weights: Weights,
    features: Features,
    *,
    seed: int,
    others: Work,
) -> Trained:
    """Train a fresh classifier by `recipe`; every choice is made on the validation rows.

    `features` remembers those of a frozen backbone from one run of the recipe to the next;
    `others` is `along` in the other processes of several devices.
    """
    check_devices(recipe.device, recipe.devices)
    classes = material.data.classes
    check_material(material, recipe)
    phases = phases_of(material, recipe, seed)
    if recipe.find_lr:
        recipe = _with_rate_found(tracked, material, recipe, weights, features, seed=seed)
    fitting = _prepared(tracked, material, recipe, weights, features, seed=seed)
    said, keepings = [], []
    with across(recipe.nodes, recipe.devices, others) as team:
        for phase in phases:
            module, fitted, keeping = fitting.fit(phase, team)
            said.append(said_of(phase, fitted))
            keepings.append(keeping)
    best_history = read_checkpoint(fitted.best)["history"]
    predict = partial(_predict, module, material, recipe, features, seed)
    store = partial(save, tracked, material, recipe, weights, module, seed=seed, phases=said)
    for name, path in keepings[-1].files():
        checkpoint = read_checkpoint(path)
        module.load_state_dict(checkpoint["state_dict"])
        folder = tracked.folder / "models" / name
        store(folder=folder, val=predict(material.val, "val"), history=checkpoint["history"])
        tracked.artifacts(folder, f"models/{name}")
    module.load_state_dict(read_checkpoint(fitted.best)["state_dict"])
    of_val = predict(material.val, "val")
    saved = store(folder=tracked.folder / "model", val=of_val, history=best_history)
    of_scored = predict(material.scored, "scored")
    chosen: dict[str, float] = best_history[-1]
    best = {f"best/{name}": value for name, value in chosen.items() if name.startswith("val/")}
    return Trained(
        saved,
        metrics={**best, **_fold_metrics(of_scored, classes, recipe.aggregate)},
        history=fitting.history,
        val=of_val,
        scored=of_scored,
        real_share=float(1 - _synthetic(material).mean()),
    )


def along(
    tracked: Run,
    material: Material,
    recipe: Recipe,
    weights: Weights,
    features: Features,
    *,
    seed: int,
    team: Team,
) -> None:
    """Train along in another process of the team, with what the first one has found out."""
    check_devices(recipe.device, recipe.devices)
    if recipe.find_lr:
        recipe = _with_rate_found(tracked, material, recipe, weights, features, seed=seed)
    fitting = _prepared(tracked, material, recipe, weights, features, seed=seed)
    for phase in phases_of(material, recipe, seed):
        fitting.fit(phase, team)


def _synthetic(material: Material) -> NDArray[np.bool_]:
    """Which training rows are synthetic."""
    return np.asarray(material.data.manifest["is_synthetic"], bool)[material.train]


def _prepared(
    tracked: Run,
    material: Material,
    recipe: Recipe,
    weights: Weights,
    features: Features,
    *,
    seed: int,
) -> Fitting:
    """A fresh network and what its plan moves."""
    network = build(
        recipe.model_name,
        shape=material.data.shape,
        classes=loss_of(material, recipe).per_class * len(material.data.classes.names),
        dropout=recipe.dropout,
        drop_path=recipe.drop_path,
        head=recipe.head,
        views=recipe.views,
        weights=weights.tensors,
        normalisation=weights.normalisation,
        source=weights.source,
        seed=derive(seed, "weights"),
    )
    # before the batches: a plan that freezes the backbone lets its features be computed once
    groups = FINETUNES.bound(recipe.finetune, vars(recipe))(network)
    if recipe.batch_size == 1 and single_images(material, recipe):
        check_single(network.body, material.data.shape, recipe.model_name)
    if recipe.compile:
        network.body.compile()
    names = material.data.classes.names
    fitting = Fitting(tracked, network, groups, recipe, features, names=names, seed=seed)
    fitting.scale(material)
    return fitting


def _with_rate_found(
    tracked: Run,
    material: Material,
    recipe: Recipe,
    weights: Weights,
    features: Features,
    *,
    seed: int,
) -> Recipe:
    """`recipe` with the learning rate that a sweep of a network of its own suggests."""
    searched = _prepared(tracked, material, recipe, weights, features, seed=seed)
    lr = searched.find_lr(phases_of(material, recipe, seed)[0])
    tracked.params({"effective.lr": lr})
    log.info("find_lr: trains with lr %g (figures/lr_finder.png)", lr)
    return replace(recipe, lr=lr)


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
    device, data = choose_device(recipe.device), material.data
    network = module.network.eval().to(device)
    if network.frozen:
        seen = keep(network, features.of(network, data, rows, device)["features"])
    else:
        batches = ordered_batches(data, rows, batch_size=recipe.batch_size)
        seen = see(network, (batch["image"] for batch in batches))
    pooled = network.pool is not None
    keys = set_keys(data.manifest.iloc[rows], recipe.views_of) if pooled else None
    told = tell(network, module.activation, data.classes.names, seen, keys)
    return predictions(
        data,
        rows,
        np.stack([told[f"score/{name}"] for name in data.classes.names], axis=1),
        told=told,
        split=split,
        fold=material.fold_number,
        seed=seed,
    ).assign(**{TRAINED_ON: material.real_training_images})


def _fold_metrics(frame: pd.DataFrame, classes: ClassMap, how: str) -> dict[str, float]:
    if not len(frame):
        return {}
    return {f"fold/{name}": value for name, value in judge(frame, classes, how).items()}
