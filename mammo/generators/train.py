"""Training of any family's generator on a dataset, from the run's settings and folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mammo.data.dataset import Dataset
from mammo.generators import family
from mammo.generators.learner import Learner
from mammo.generators.material import Evidence, Material, gather
from mammo.generators.watching import SampleGrids
from mammo.run import Run
from mammo.training import Averaging, Fitted, fit


@dataclass(frozen=True)
class Trained:
    """What training hands back; `learner` carries the weights of the best epoch."""

    material: Material
    plan: dict[str, Any]
    learner: Learner
    fitted: Fitted


def train(tracked: Run, settings: Mapping[str, Any]) -> Trained:
    """Train the generator that `settings` of train_generator describe, or on from where it was."""
    chosen = family(settings["generator"])
    data = Dataset(tracked.inputs["data"][0].path)
    material = gather(data, settings, folder=tracked.folder, inputs=tracked.inputs)
    plan = chosen.plan(material, settings)
    _log(tracked, material.evidence)
    learner = chosen.learner(plan, material, settings)
    train_batches, val_batches = material.batches(settings["batch_size"], settings["seed"])
    tracked.input(data.name, data.digest, len(material.train), "training")
    tracked.input(data.name, data.digest, len(material.val), "validation")
    averaging = [Averaging(settings["ema"])] if settings["ema"] else []
    grids = SampleGrids(tracked, material, every=settings["sample_every"])
    fitted = fit(
        learner,
        train=train_batches,
        val=val_batches,
        tracked=tracked,
        epochs=settings["epochs"],
        seed=settings["seed"],
        monitor=chosen.MONITOR,
        mode="min",
        patience=settings["patience"],
        device=settings["device"],
        precision=settings["precision"],
        gradient_clip=1.0,
        callbacks=[*averaging, grids],
    )
    return Trained(material, plan, learner, fitted)


def _log(tracked: Run, evidence: Evidence) -> None:
    tracked.metrics(evidence.metrics)
    tracked.tags(evidence.tags)
    for key, image in evidence.images.items():
        tracked.image(key, image, step=0)
