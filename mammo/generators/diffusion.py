"""Training of a network to undo noise: what all strategies, modes and canvases share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from mammo.generators import draws
from mammo.generators.canvas import Canvas
from mammo.generators.learner import spread, trainable, weight
from mammo.generators.losses import SQUARED, Loss
from mammo.generators.sampling import DiffusionArtist
from mammo.generators.strategies import Strategy
from mammo.training.optimizing import Optimizing


class Diffusion(LightningModule):
    """A network, the strategy that makes noise of images, and the loss between.

    The network is called as `UNet` is; those of its parameters that require no gradient stay.
    """

    def __init__(
        self,
        network: Any,
        strategy: Strategy,
        canvas: Canvas,
        *,
        optimizing: Optimizing,
        label_dropout: float,
        min_snr_gamma: float,
        seed: int,
        loss: Loss = SQUARED,
    ) -> None:
        super().__init__()
        self.network, self.loss = network, loss
        self.strategy, self.canvas = strategy, canvas
        self.optimizing = optimizing
        self._label_dropout, self._gamma, self._seed = label_dropout, min_snr_gamma, seed

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        target, control = self.canvas.target(batch), self.canvas.control(batch)
        device, rows = target.device, batch["row"]
        drawing = draws.generators(self._seed, "diffusion", self.trainer.global_step, rows=rows)
        dropped = draws.uniform(drawing, device) < self._label_dropout
        times = self.strategy.times(draws.uniform(drawing, device))
        noise = draws.normal(drawing, target.shape[1:], device)
        labels = torch.where(dropped[:, None], self.network.none, self._told(batch, drawing))
        if control is not None:
            control = torch.where(dropped[:, None, None, None], 0.0, control)
        loss = self._losses(target, labels, control, noise, times).mean()
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, batch_size=len(rows), sync_dist=True
        )
        return loss

    def _told(self, batch: dict[str, Tensor], drawing: Sequence[torch.Generator]) -> Tensor:
        """The labels (N, K) with each condition beside the class, on its own, now and then untold.

        A class is so learned with and without a view, say; what is told to be guided away from,
        nothing at all, is another matter.
        """
        labels, none = batch["labels"], self.network.none
        if len(none) < 2:
            return labels
        further = draws.hide(labels[:, 1:], none[1:].tolist(), drawing, self._label_dropout)
        return torch.cat([labels[:, :1], further], 1)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> dict[str, Tensor]:
        """The noise and the time of a row are the same in every epoch and every run.

        Returns share of noise and loss of every row, for whoever watches.
        """
        target, control = self.canvas.target(batch), self.canvas.control(batch)
        drawing = draws.generators(0, "validation noise", rows=batch["row"])
        noise = draws.normal(drawing, target.shape[1:], target.device)
        times = self.strategy.times(spread(batch["row"]))
        losses = self._losses(target, batch["labels"], control, noise, times)
        self.log("val/loss", losses.mean(), batch_size=weight(losses), sync_dist=True)
        return {"noisiness": self.strategy.noisiness(times), "losses": losses}

    def configure_optimizers(self) -> Any:
        return self.optimizing.of(trainable(self), self.trainer)

    def weights(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.network.state_dict()
        return found

    def artist(self) -> DiffusionArtist:
        return DiffusionArtist(self.network, self.strategy, self.canvas)

    def _losses(
        self,
        target: Tensor,
        labels: Tensor,
        control: Tensor | None,
        noise: Tensor,
        times: Tensor,
    ) -> Tensor:
        """The loss of every image, (N,)."""
        noisy, wanted = self.strategy.corrupt(target, noise, times)
        told = self.strategy.network_time(times)
        output = self.strategy.predict(
            lambda x: self.network(x, told, labels, control), noisy, times
        )

        def images() -> tuple[Tensor, Tensor]:
            clean = self.canvas.clip(self.strategy.denoised(output, noisy, times))
            return self.canvas.pixels(clean), self.canvas.pixels(target)

        return self.loss(output, wanted, self.strategy.loss_weight(times, self._gamma), images)
