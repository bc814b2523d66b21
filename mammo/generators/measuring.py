"""What is measured while a generator learns: kernel distance to real images, loss by noise."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from mammo.evaluation.extractors import load_extractor
from mammo.evaluation.fidelity import HALVINGS, halve, kernel
from mammo.generators.material import Material
from mammo.generators.watching import asked_like
from mammo.run import Run
from mammo.seeds import derive

MOST = 256  # images drawn for a kernel distance, which has no bias at any number
LEAST = 4  # real images in each half of the floor
BINS = 10  # of the share of noise, over which a loss is told
THIRDS = ("low", "middle", "high")  # share of noise, of the curves
log = logging.getLogger("mammo")


class KernelDistance(Callback):
    """Measures val/kid every `every` epochs and after the last; 0 never does.

    The kernel distance is between all validation images and as many (`MOST` at most) drawn by the
    averaged weights: it stands behind the averaging callback. The drawn ones are asked for like
    evenly spaced validation rows, from the same seeds each time. Beside it stands val/kid_floor,
    the mean distance between patient-disjoint halves of the validation images.
    """

    def __init__(self, tracked: Run, material: Material, *, extractor: str, every: int) -> None:
        self._material, self._every, self._tracked = material, every, tracked
        self._setting = extractor
        self._found: dict[str, float] = {}

    def measured(self) -> dict[str, float]:
        """What the epoch that has just ended gave; empty where nothing was measured."""
        found, self._found = self._found, {}
        return found

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        due = self._every and (epoch % self._every == 0 or epoch == trainer.max_epochs)
        if not due or not trainer.is_global_zero:
            return
        learner: Any = module
        rows = self._material.val
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, MOST).astype(int))]
        drawn = learner.artist().draw(asked_like(self._material, rows)).numpy()
        made = self._extractor.features(
            lambda some: drawn[some], np.arange(len(drawn)), device=str(module.device)
        )
        real, floor = self._real(str(module.device))
        self._found = {"val/kid": kernel(real, made)} | floor

    @cached_property
    def _extractor(self) -> Any:
        extractor = load_extractor(self._setting)
        self._tracked.tags({"mammo.kid_extractor": f"{extractor.name} {extractor.sha256[:8]}"})
        if extractor.stand_in:
            log.warning(
                "val/kid is measured with %s, a network with random weights: it tells epochs of "
                "one run apart, and says nothing beside other runs' or published values",
                extractor.name,
            )
        return extractor

    def _real(self, device: str) -> tuple[NDArray[np.float64], dict[str, float]]:
        """Features of the validation images and their floor, computed once."""
        if not hasattr(self, "_reference"):
            rows = self._material.val
            real = self._extractor.features(self._material.made, rows, device=device)
            patients = self._material.data.manifest["group_id"].to_numpy(str)[rows]
            self._reference = real, kid_floor(real, patients)
        return self._reference


def kid_floor(real: NDArray[np.float64], patients: NDArray[np.str_]) -> dict[str, float]:
    """val/kid_floor of features (N, D), or nothing where the halves are too small."""
    halves = [halve(patients, derive(0, "halves", number)) for number in range(HALVINGS)]
    if min(len(each) for pair in halves for each in pair) < LEAST:
        return {}
    return {"val/kid_floor": float(np.mean([kernel(real[a], real[b]) for a, b in halves]))}


class LossByNoise(Callback):
    """Keeps the mean validation loss of every epoch in `BINS` bins of the share of noise.

    It reads what validation steps return: `noisiness` (N,) in [0, 1] and `losses` (N,). A
    generator without noise returns nothing, and has no such table.
    """

    def __init__(self) -> None:
        self._epochs: list[dict[str, list[float]]] = []
        self._parts: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._thirds: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self._epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epochs = list(state_dict["epochs"])

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._parts = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if isinstance(outputs, Mapping) and "noisiness" in outputs:
            parts = (outputs["noisiness"], outputs["losses"])
            noise, losses = (each.detach().float().cpu() for each in parts)
            self._parts.append((noise, losses))

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self._parts:
            noise, losses = (
                torch.cat(each).double().numpy() for each in zip(*self._parts, strict=True)
            )
            counts, sums = _over_processes(trainer, binned(noise, losses, BINS))
            self._epochs.append({"images": counts.tolist(), "losses": _means(counts, sums)})
            self._thirds = _means(*_over_processes(trainer, binned(noise, losses, len(THIRDS))))

    def measured(self) -> dict[str, float]:
        """Mean loss at a low, middle and high share of noise, in the epoch that has just ended."""
        names = [f"val/loss_{name}_noise" for name in THIRDS]
        means = dict(zip(names, self._thirds, strict=False))  # none of a generator without noise
        return {name: mean for name, mean in means.items() if not math.isnan(mean)}

    def table(self) -> pd.DataFrame:
        """A row for each epoch and bin: epoch, noise_from, noise_to, images, loss."""
        rows = [
            {
                "epoch": epoch,
                "noise_from": number / BINS,
                "noise_to": (number + 1) / BINS,
                "images": int(each["images"][number]),
                "loss": each["losses"][number],
            }
            for epoch, each in enumerate(self._epochs, 1)
            for number in range(BINS)
        ]
        return pd.DataFrame(rows)

    def log_to(self, tracked: Run, best_epoch: int) -> None:
        """Log the table, and a figure of the first, the best and the last epoch."""
        if not self._epochs:
            return
        table = self.table()
        tracked.table("loss_by_noise", table)
        epochs = sorted({1, best_epoch, len(self._epochs)})
        tracked.figure("loss_by_noise", noise_figure(table, epochs))


def noise_figure(table: pd.DataFrame, epochs: Sequence[int]) -> Any:
    """Figure of the loss over the share of noise in `epochs` of `table` (see LossByNoise.table).

    Where no validation image had such noise the line has a gap.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for epoch in epochs:
        rows = table[table["epoch"] == epoch]
        middles = (rows["noise_from"] + rows["noise_to"]) / 2
        axes.plot(middles, rows["loss"], marker="o", label=f"epoch {epoch}")
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of noise")
    axes.set_ylabel("validation loss")
    axes.legend()
    return figure


def binned(
    noise: NDArray[np.float64], losses: NDArray[np.float64], bins: int
) -> NDArray[np.float64]:
    """Images and the sum of their losses, (2, bins), in each of `bins` equal parts of [0, 1]."""
    places = np.clip((noise * bins).astype(int), 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    return np.stack([counts, np.bincount(places, weights=losses, minlength=bins)]).astype(float)


def _over_processes(trainer: Trainer, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """`sums` of all processes: each has seen its share, or all where that is too little."""
    if trainer.world_size == 1 or len(trainer.val_dataloaders.dataset) < trainer.world_size:
        return sums
    mine = torch.from_numpy(sums).to(trainer.strategy.root_device)
    found: NDArray[np.float64] = trainer.strategy.reduce(mine, reduce_op="sum").cpu().numpy()
    return found


def _means(counts: NDArray[np.float64], sums: NDArray[np.float64]) -> list[float]:
    """Mean of each bin, nan of one without images."""
    means = np.divide(sums, counts, out=np.full(len(counts), math.nan), where=counts > 0)
    return [float(each) for each in means]
