"""Training of a network to undo noise: what all diffusion methods share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mammo.data.classes import ClassMap
from mammo.generators.network import Network
from mammo.generators.preview import grid
from mammo.generators.sampling import sample
from mammo.run import Run
from mammo.seeds import derive

WARM_UP = 100  # optimizer steps from 0 to the full learning rate, at most a tenth of all
GOLDEN = (math.sqrt(5) - 1) / 2


class Diffusion(LightningModule):
    """A network, the process that makes noise of images, and the mean squared error between."""

    def __init__(
        self,
        network: Network,
        process: Any,
        *,
        lr: float,
        label_dropout: float,
        min_snr_gamma: float,
    ) -> None:
        super().__init__()
        self.network = network
        self.process = process
        self._lr, self._label_dropout, self._gamma = lr, label_dropout, min_snr_gamma

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        images = batch["image"] * 2 - 1
        count, device = len(images), images.device
        dropped = torch.rand(count, device=device) < self._label_dropout
        labels = torch.where(dropped, self.network.null_label, batch["label"])
        times = self.process.times(torch.rand(count, device=device))
        loss = self._losses(images, labels, torch.randn_like(images), times).mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=count)
        return loss

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        """The noise and the time of a row are the same in every epoch and every run."""
        images = batch["image"] * 2 - 1
        rows = batch["row"].tolist()
        noise = torch.stack([_fixed_noise(row, images.shape[1:]) for row in rows])
        # multiples of the golden ratio, modulo 1, fill the interval evenly however many there are
        spread = torch.tensor([(row + 1) * GOLDEN % 1 for row in rows], device=images.device)
        times = self.process.times(spread)
        losses = self._losses(images, batch["label"], noise.to(images.device), times)
        self.log("val/loss", losses.mean(), batch_size=len(images))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self._lr, betas=(0.9, 0.99))
        total = int(self.trainer.estimated_stepping_batches)
        warm_up = max(1, min(WARM_UP, total // 10))

        def share(step: int) -> float:
            """Linear warm-up, then half a cosine to a twentieth."""
            if step < warm_up:
                return (step + 1) / warm_up
            done = (step - warm_up) / max(1, total - warm_up)
            return 0.05 + 0.95 * (1 + math.cos(math.pi * min(1.0, done))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _losses(self, images: Tensor, labels: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Weighted squared error of every image, (N,)."""
        noisy, target = self.process.corrupt(images, noise, times)
        told = self.process.network_time(times)
        output = self.process.predict(lambda x: self.network(x, told, labels), noisy, times)
        losses: Tensor = (output - target).square().flatten(1).mean(1)
        if self._gamma:
            losses = losses * self.process.loss_weight(times, self._gamma)
        return losses


class SampleGrids(Callback):
    """Logs samples of every class, from the same seeds, every `every` epochs and after the last.

    It stands behind the averaging callback, so that validation has put the averaged weights in
    place when it samples.
    """

    def __init__(
        self,
        tracked: Run,
        classes: ClassMap,
        shape: tuple[int, int, int],
        *,
        every: int,
        sampler: str,
        count: int = 4,
        steps: int = 20,
    ) -> None:
        self._tracked, self._classes, self._shape = tracked, classes, shape
        self._every, self._sampler, self._count, self._steps = every, sampler, count, steps

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if not self._every or (epoch % self._every and epoch != trainer.max_epochs):
            return
        names = self._classes.names
        seeds = list(range(self._count))
        images = sample(
            module.network,
            module.process,
            shape=self._shape,
            labels=[label for label in range(len(names)) for _ in seeds],
            seeds=seeds * len(names),
            guidance=1.0,
            steps=self._steps,
            sampler=self._sampler,
        ).numpy()
        for number, name in enumerate(names):
            of_class = images[number * self._count : (number + 1) * self._count]
            self._tracked.image(f"samples/{name}", grid(of_class), step=epoch)


def _fixed_noise(row: int, shape: Sequence[int]) -> Tensor:
    generator = torch.Generator().manual_seed(derive(0, "validation noise", row))
    return torch.randn(tuple(shape), generator=generator)


def epoch_order(count: int, *, batch_size: int, seed: int, epoch: int) -> np.ndarray[Any, Any]:
    """Positions 0 .. `count` - 1 shuffled for `epoch`, cut to whole batches where one fits."""
    order = np.random.default_rng(derive(seed, "order", epoch)).permutation(count)
    return order[: count - count % batch_size] if count >= batch_size else order
