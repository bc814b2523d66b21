"""Training of any family's generator on a dataset, from the run's settings and folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from mammo.data.dataset import Dataset
from mammo.errors import DataError
from mammo.generators import family
from mammo.generators.augment import Augmentation, warn_of_sides
from mammo.generators.learner import Learner
from mammo.generators.material import Evidence, Material, gather
from mammo.generators.measuring import KernelDistance, LossByNoise
from mammo.generators.searching import settled
from mammo.generators.watching import SampleGrids
from mammo.loggers import logged_by
from mammo.run import Reference, Run, SilentRun
from mammo.training import Averaging, Fitted, fit
from mammo.training.devices import check_devices
from mammo.training.nodes import across
from mammo.training.processes import Team
from mammo.training.sharing import check_parts

MEASUREMENTS = 20  # of a kernel distance that is monitored but not asked for at any interval


@dataclass(frozen=True)
class Trained:
    """What training hands back; `learner` carries the weights of the best epoch."""

    material: Material
    plan: dict[str, Any]
    learner: Learner
    fitted: Fitted
    monitor: str  # the metric that chose it
    settings: Mapping[str, Any]  # with the learning rate and batch size that were searched


def train(tracked: Run, settings: Mapping[str, Any]) -> Trained:
    """Train the generator that `settings` of train_generator describe, or on from where it was.

    The other processes of several `devices` or `nodes` start when all that one has to find out is
    found.
    """
    check_devices(settings["device"], settings["devices"])
    material = _gather(tracked, settings)
    _check_measured(material, settings)
    if settings["augment"] != "none":
        warn_of_sides(material.data, material.train)
    plan = family(settings["generator"]).plan(material, settings)
    _log(tracked, material.evidence)
    settings = settled(tracked, material, plan, settings)
    sampler: Any = material.batches(settings["batch_size"], settings["seed"])[0].sampler
    batch = min(settings["batch_size"], len(sampler))
    check_parts(batch, settings["nodes"] * settings["devices"], settings["accumulate"])
    for rows, context in ((material.train, "training"), (material.val, "validation")):
        tracked.input(material.data.name, material.data.digest, len(rows), context)
    learner = learner_of(material, plan, settings)
    others = partial(
        _join, tracked.id, tracked.folder, tracked.work, dict(tracked.inputs), plan, dict(settings)
    )
    with (
        logged_by(settings["logger"], tracked, settings) as logged,
        across(settings["nodes"], settings["devices"], others) as team,
    ):
        return _trained(logged, material, plan, learner, settings, team)


def learner_of(material: Material, plan: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """The family's learner, its weights in the memory order that the settings ask for."""
    learner: Any = family(settings["generator"]).learner(plan, material, settings)
    if settings["channels_last"]:
        learner.to(memory_format=torch.channels_last)
    return learner


def monitored(settings: Mapping[str, Any]) -> tuple[str, int]:
    """The metric that chooses the best checkpoint, and the epochs between measurements of val/kid.

    A kernel distance that is monitored is measured also where `kid_every` is 0, about
    `MEASUREMENTS` times: the least of many noisy values would be the luckiest.
    """
    own: str = family(settings["generator"]).MONITOR
    monitor = own if settings["monitor"] == "auto" else settings["monitor"]
    every = settings["kid_every"]
    if monitor == "val/kid" and not every:
        every = max(1, settings["epochs"] // MEASUREMENTS)
    return monitor, every


def _gather(tracked: Run, settings: Mapping[str, Any]) -> Material:
    data = Dataset(tracked.inputs["data"][0].path)
    return gather(data, settings, folder=tracked.folder, inputs=tracked.inputs)


def _check_measured(material: Material, settings: Mapping[str, Any]) -> None:
    """DataError where a kernel distance is to be measured to too few validation images."""
    if monitored(settings)[1] and len(material.val) < 2:
        raise DataError(
            f"val/kid needs 2 validation images, dataset {material.data.name} has "
            f"{len(material.val)}; use monitor=val/loss and kid_every=0"
        )


def _log(tracked: Run, evidence: Evidence) -> None:
    tracked.metrics(evidence.metrics)
    tracked.tags(evidence.tags)
    for key, image in evidence.images.items():
        tracked.image(key, image, step=0)


def _join(
    id: str,
    folder: Path,
    work: Path,
    inputs: dict[str, list[Reference]],
    plan: Mapping[str, Any],
    settings: Mapping[str, Any],
    team: Team,
) -> None:
    """Train along in a process of its own, with what the first one has found out."""
    check_devices(settings["device"], settings["devices"])  # of another machine, it may be
    tracked = SilentRun(id, folder, work, inputs)
    material = _gather(tracked, settings)
    _trained(tracked, material, plan, learner_of(material, plan, settings), settings, team)


def _trained(
    tracked: Run,
    material: Material,
    plan: Mapping[str, Any],
    learner: Any,
    settings: Mapping[str, Any],
    team: Team,
) -> Trained:
    """Fit in this process of the team, and log what was seen on the way."""
    monitor, kid_every = monitored(settings)
    train_batches, val_batches = material.batches(settings["batch_size"], settings["seed"])
    by_noise = LossByNoise()
    distance = KernelDistance(tracked, material, extractor=settings["extractor"], every=kid_every)
    changes = settings["augment"]
    callbacks: list[Callback] = []
    callbacks += [] if changes == "none" else [Augmentation(changes, seed=settings["seed"])]
    callbacks += [Averaging(settings["ema"])] if settings["ema"] else []
    # behind the averaging, whose weights sample
    callbacks += [SampleGrids(tracked, material, every=settings["sample_every"])]
    fitted = fit(
        learner,
        train=train_batches,
        val=val_batches,
        tracked=tracked,
        epochs=settings["epochs"],
        seed=settings["seed"],
        monitor=monitor,
        mode="min",
        patience=settings["patience"],
        device=settings["device"],
        precision=settings["precision"],
        gradient_clip=settings["gradient_clip"],
        accumulate=settings["accumulate"],
        callbacks=[*callbacks, distance, by_noise],
        measures=[distance.measured, by_noise.measured],
        team=team,
        upload_minutes=settings["upload_minutes"],
        about={"data_digest": material.data.digest, "settings": dict(settings)},
    )
    by_noise.log_to(tracked, fitted.best_epoch)
    return Trained(material, dict(plan), learner, fitted, monitor, settings)
