"""What is looked at while a generator learns: grids of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mammo.generators.artist import Asked
from mammo.generators.material import Material
from mammo.generators.preview import grid
from mammo.run import Run

STEPS = 20  # of diffusion, for what is only looked at


class SampleGrids(Callback):
    """Logs samples of every class, from the same seeds, every `every` epochs and after the last.

    It stands behind the averaging callback, so that validation has put the averaged weights in
    place when it samples. What controls an image, and what is told of it beside its class, is
    that of the first validation rows of the class.
    """

    def __init__(self, tracked: Run, material: Material, *, every: int, count: int = 4) -> None:
        self._tracked, self._every = tracked, every
        self._asked = {
            name: asked_like(material, rows)
            for name, rows in rows_by_class(material, count).items()
        }

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        due = self._every and (epoch % self._every == 0 or epoch == trainer.max_epochs)
        if not due or not trainer.is_global_zero:
            return
        learner: Any = module
        artist = learner.artist()
        for name, asked in self._asked.items():
            images = artist.draw(asked).numpy()
            self._tracked.image(f"samples/{name}", grid(images), step=epoch)


def rows_by_class(material: Material, count: int) -> dict[str, np.ndarray[Any, Any]]:
    """The first `count` validation rows of every class, training rows where there are too few.

    A generator that is told no class has one group of rows, called "all".
    """
    rows = np.concatenate([material.val, material.train])
    if "label" not in material.conditions.columns:
        return {"all": rows[:count]}
    labels = material.data.manifest["label"].to_numpy()[rows]
    found = {name: rows[labels == name][:count] for name in material.data.classes.names}
    return {name: each for name, each in found.items() if len(each)}


def asked_like(material: Material, rows: np.ndarray[Any, Any], *, first_seed: int = 0) -> Asked:
    """What asks for images like `rows`, seeds counted from `first_seed`."""
    return Asked(
        labels=torch.from_numpy(material.labels[rows]),
        seeds=list(range(first_seed, first_seed + len(rows))),
        control=material.control(rows),
        steps=STEPS,
    )
