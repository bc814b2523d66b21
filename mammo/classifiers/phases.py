"""The phases of a training: a subset, all rows, the real ones; each has its own optimizer."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback
from numpy.typing import NDArray

from mammo.classifiers.backbone import Network
from mammo.classifiers.changing import make_changing
from mammo.classifiers.features import Batches, Features, serve
from mammo.classifiers.losses import Loss, make_loss
from mammo.classifiers.material import (
    Material,
    Rows,
    check_training,
    class_counts,
    sample_labels,
    sets_of,
)
from mammo.classifiers.module import ClassifierModule
from mammo.classifiers.plans import Group
from mammo.classifiers.recipe import Recipe
from mammo.classifiers.scores import judge, mode_of, predictions
from mammo.classifiers.unfreezing import Patience, Unfreezing
from mammo.data.loading import ends_in_one, ordered_batches, training_batches
from mammo.data.samplers import SAMPLERS
from mammo.errors import ConfigError, DataError
from mammo.run import Run
from mammo.seeds import derive
from mammo.training import Fitted, choose_device, fit
from mammo.training.finders import kept, steepest, sweep, sweep_figure
from mammo.training.keeping import Keeping
from mammo.training.optimizing import Optimizing
from mammo.training.processes import Team

log = logging.getLogger("mammo")
MAIN = "all"


@dataclass(frozen=True)
class Phase:
    """Rows that train for so many epochs, and their seed."""

    name: str  # subset, all or real
    material: Material
    epochs: int
    lr_factor: float
    seed: int

    @property
    def folder(self) -> str:
        """Of its checkpoints in the run's folder."""
        return "checkpoints" if self.name == MAIN else f"checkpoints-{self.name}"


def phases_of(material: Material, recipe: Recipe, seed: int) -> list[Phase]:
    """What trains after what; the last phase chooses the model."""
    data, rows = material.data.manifest, material.train
    found = [Phase(MAIN, material, recipe.epochs, 1.0, seed)]
    if recipe.subset_epochs:
        marked = rows[data["warmup"].to_numpy()[rows]]
        if not len(marked):
            raise DataError(
                f"subset_epochs {recipe.subset_epochs} needs a warm-up subset, dataset "
                f"{material.data.name} has none; preprocess it with --warmup_negatives 3"
            )
        found.insert(0, _phase("subset", material, marked, recipe, 1.0, seed))
    if recipe.real_epochs:
        real = rows[~data["is_synthetic"].to_numpy()[rows]]
        if len(real) in (0, len(rows)):
            raise ConfigError(
                f"real_epochs {recipe.real_epochs} follow the training on real and synthetic "
                f"images, and {len(rows) - len(real)} of {len(rows)} training images are "
                "synthetic; mix both, or leave real_epochs at 0"
            )
        factor = recipe.real_lr_factor
        found.append(_phase("real", material, real, recipe, factor, seed))
    return found


def _phase(
    name: str, material: Material, rows: Rows, recipe: Recipe, lr_factor: float, seed: int
) -> Phase:
    own = replace(material, train=rows)
    check_training(own, recipe, name, "give it more images, or 0 epochs")
    epochs = {"subset": recipe.subset_epochs, "real": recipe.real_epochs}[name]
    return Phase(name, own, epochs, lr_factor, derive(seed, name))


class Fitting:
    """Fits one network to phases of one run, one after the other; `names` are its classes'."""

    def __init__(
        self,
        tracked: Run,
        network: Network,
        groups: list[Group],
        recipe: Recipe,
        features: Features,
        *,
        names: tuple[str, ...],
        seed: int,
    ) -> None:
        self.history: list[dict[str, float]] = []
        self.epochs = 0  # of all phases so far
        self._tracked, self._network, self._groups = tracked, network, groups
        self._recipe, self._features, self._seed = recipe, features, seed
        self._change = make_changing(vars(recipe), names)

    def fit(self, phase: Phase, team: Team) -> tuple[ClassifierModule, Fitted, Keeping]:
        """Train, or train on, from the weights that the network has; a fresh optimizer each.

        The module carries the weights of the best epoch.
        """
        recipe = self._recipe
        train, val = self._batches(phase)
        module = self.module(phase, recipe.lr * phase.lr_factor, len(train))
        keeping = self._keeping(phase)
        fitted = fit(
            module,
            train=train,
            val=val,
            tracked=self._tracked,
            epochs=phase.epochs,
            seed=phase.seed,
            monitor=recipe.monitors[0],
            mode=mode_of(recipe.monitors[0]),
            patience=recipe.patience,
            patience_after=recipe.patience_after,
            min_delta=recipe.min_delta,
            device=recipe.device,
            precision=recipe.precision,
            callbacks=[*self._unfreezing(), keeping],
            team=team,
            even=False,
            folder=phase.folder,
            before=self.epochs,
            upload_minutes=recipe.upload_minutes,
            about={
                "data_digest": phase.material.data.digest,
                "phase": phase.name,
                "settings": {**vars(recipe), "seed": self._seed},
            },
        )
        self.history += module.history
        self.epochs += fitted.epochs
        return module, fitted, keeping

    def module(self, phase: Phase, lr: float, steps: int) -> ClassifierModule:
        """What Lightning trains, an epoch being `steps` optimizer steps."""
        recipe, material = self._recipe, phase.material
        factor = lr / recipe.lr
        return ClassifierModule(
            self._network,
            loss_of(material, recipe),
            augment=self._change,
            judge=_judge(material, recipe, self._seed),
            optimizing=_optimizing(recipe, steps),
            groups=[{**group, "lr": group["lr"] * factor} for group in self._groups],
            total_steps=phase.epochs * steps,
        )

    def find_lr(self, phase: Phase) -> float:
        """The rate at which the loss falls fastest, all groups at one rate; the network is used up.

        Kept in the run's folder: a run that is continued goes on with it.
        """
        return float(kept(self._tracked.folder / "found.json", "lr", partial(self._swept, phase)))

    def _swept(self, phase: Phase) -> float:
        train, _ = self._batches(phase)
        rates, losses = sweep(
            self.module(phase, self._recipe.lr, len(train)),
            train,
            folder=self._tracked.folder,
            device=self._recipe.device,
            precision=self._recipe.precision,
            gradient_clip=0.0,
            accumulate=1,
            seed=self._seed,
        )
        chosen = steepest(rates, losses)
        self._tracked.figure("lr_finder", sweep_figure(rates, losses, chosen))
        return chosen

    def scale(self, material: Material) -> None:
        """Scale the features of a frozen backbone by all training rows, whatever the phase."""
        network = self._network
        if network.frozen:
            device = choose_device(self._recipe.device)
            found = self._features.of(network, material.data, material.train, device)
            network.scale_features(found["features"].to(network.feature_mean.device))

    def _batches(self, phase: Phase) -> tuple[Batches, Batches]:
        """Training and validation batches: images, or features where those never change."""
        network, recipe, material = self._network, self._recipe, phase.material
        size, data, rows = recipe.batch_size, material.data, material.train
        sets, val_sets = (sets_of(data, each, recipe) for each in (rows, material.val))
        labels = sample_labels(data, rows, sets)
        positive = data.classes.positive_id
        draw = SAMPLERS.bound(recipe.sampler, {**vars(recipe), "positive": positive})

        def order(epoch: int) -> Rows:
            positions: Rows = draw(labels, phase.seed, epoch)
            return positions

        images = training_batches(
            data,
            rows,
            batch_size=size,
            order=order,
            sets=sets,
            workers=recipe.workers,
            processes=recipe.processes,
        )
        if not network.frozen:
            return images, ordered_batches(data, material.val, batch_size=size, sets=val_sets)
        device = choose_device(recipe.device)
        of_val = sample_labels(data, material.val, val_sets)
        val = serve(
            self._features.of(network, data, material.val, device),
            batch_size=size,
            order=lambda epoch: np.arange(len(of_val)),
            sets=val_sets,
            labels=of_val,
        )
        if not self._change.nothing:
            return images, val
        train = serve(
            self._features.of(network, data, rows, device),
            batch_size=size,
            order=order,
            sets=sets,
            labels=labels,
            drop_last=ends_in_one(len(order(0)), size),
        )
        return train, val

    def _unfreezing(self) -> list[Callback]:
        recipe = self._recipe
        if recipe.finetune != "gradual":
            return []
        patience = Patience(
            recipe.unfreeze_after,
            recipe.unfreeze_patience,
            recipe.unfreeze_drop,
            recipe.unfreeze_cooldown,
        )
        return [
            Unfreezing(
                self._groups,
                monitor=recipe.monitors[0],
                mode=mode_of(recipe.monitors[0]),
                min_delta=recipe.min_delta,
                patience=patience,
                head_factor=recipe.unfreeze_head_factor,
            )
        ]

    def _keeping(self, phase: Phase) -> Keeping:
        first, *others = self._recipe.monitors
        return Keeping(
            Path(self._tracked.folder, phase.folder),
            best={each: mode_of(each) for each in others},
            ranked=(first, mode_of(first)),
            top=self._recipe.top_k,
            every=self._recipe.snapshot_every,
        )


def loss_of(material: Material, recipe: Recipe) -> Loss:
    """The loss of `recipe`; what it counts, it counts on the training rows."""
    told = {"counts": class_counts(material, recipe), "positive": material.data.classes.positive_id}
    return make_loss(recipe.loss, {**vars(recipe), **told})


def _optimizing(recipe: Recipe, steps: int) -> Optimizing:
    """Optimizer and schedule of `recipe`, an epoch being so many optimizer steps."""
    return Optimizing(
        recipe.lr,
        (0.9, 0.999),
        warm_up=recipe.warm_up,
        optimizer=recipe.optimizer,
        weight_decay=recipe.weight_decay,
        schedule=recipe.lr_schedule,
        least=0.0,
        drop=recipe.lr_drop,
        every=recipe.lr_every * steps,
        patience=recipe.lr_patience,
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


def said_of(phase: Phase, fitted: Fitted) -> dict[str, Any]:
    """What a model says of a phase of its training."""
    synthetic = phase.material.data.manifest["is_synthetic"].to_numpy()[phase.material.train]
    return {
        "phase": phase.name,
        "images": len(synthetic),
        "synthetic_images": int(synthetic.sum()),
        "epochs": fitted.epochs,
        "best_epoch": fitted.best_epoch,
    }
