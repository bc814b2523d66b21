"""A class-conditional variational autoencoder (Kingma and Welling 2014; Sohn et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from mammo.generators import draws
from mammo.generators.canvas import Canvas
from mammo.generators.learner import trainable, weight
from mammo.generators.one_call import Grow, OneCallArtist, one_hot, planes, smallest
from mammo.training.optimizing import Optimizing

KL_WEIGHT = 1.0  # where the setting is 0


class Encoder(nn.Module):
    """Mean and log-variance (N, latent_dim) of what an image is remembered by.

    Every label enters as planes of its one-hot beside the image, a control likewise.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        self._sizes = list(description["labels"])
        channels, height, width = smallest(description)
        seen = description["made"][0] + description["control"] + sum(self._sizes)
        levels: list[nn.Module] = []
        for out in description["channels"]:
            levels += [nn.Conv2d(seen, out, 4, stride=2, padding=1), nn.SiLU()]
            seen = out
        self.levels = nn.Sequential(*levels, nn.Flatten())
        self.last = nn.Linear(channels * height * width, 2 * description["latent_dim"])

    def forward(
        self, image: Tensor, labels: Tensor, control: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        told = planes(one_hot(labels, self._sizes), image)
        seen = torch.cat([image, told, *([] if control is None else [control])], dim=1)
        mean, log_variance = self.last(self.levels(seen)).chunk(2, dim=1)
        return mean, log_variance


class Decoder(nn.Module):
    """Images (N, C, H, W) in [-1, 1] from latents (N, latent_dim), the labels' one-hot beside."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.latent_dim = int(description["latent_dim"])
        self._sizes = list(description["labels"])
        self._smallest = smallest(description)
        channels, height, width = self._smallest
        control = int(description["control"])
        self.first = nn.Linear(self.latent_dim + sum(self._sizes), channels * height * width)
        self.levels = nn.ModuleList()
        for out in reversed([description["channels"][0], *description["channels"][:-1]]):
            self.levels.append(Grow(channels, control, out))
            channels = out
        self.last = nn.Conv2d(channels, description["made"][0], 3, padding=1)

    def forward(self, latent: Tensor, labels: Tensor, control: Tensor | None) -> Tensor:
        told = one_hot(labels, self._sizes)
        x = self.first(torch.cat([latent, told], dim=1)).unflatten(1, self._smallest)
        for level in self.levels:
            x = level(functional.silu(x), control)
        image: Tensor = torch.tanh(self.last(functional.silu(x)))
        return image


class Variational(LightningModule):
    """Encoder and decoder, and the negative evidence lower bound between.

    The loss of an image is the squared error of its values in [0, 1], summed over pixels and
    channels, plus `kl_weight` times the divergence in nats, summed over the latents; a batch has
    the mean over its images. That is the bound, without its constant and times `kl_weight`, for
    pixels that are normal around what is decoded with variance `kl_weight` / 2.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        canvas: Canvas,
        *,
        labels: tuple[int, ...],
        optimizing: Optimizing,
        kl_weight: float,
        label_dropout: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.canvas = encoder, decoder, canvas
        self.optimizing = optimizing
        self._sizes = labels
        self._kl_weight, self._label_dropout, self._seed = kl_weight, label_dropout, seed

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        rows = batch["row"]
        drawing = draws.generators(self._seed, "vae", self.trainer.global_step, rows=rows)
        labels = draws.hide(batch["labels"], self._sizes, drawing, self._label_dropout)
        error, divergence = self.terms(batch, labels, drawing)
        loss = (error + self._kl_weight * divergence).mean()
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, batch_size=len(rows), sync_dist=True
        )
        return loss

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        """The latent's noise of a row is the same in every epoch and every run."""
        drawing = draws.generators(0, "validation latent", rows=batch["row"])
        error, divergence = self.terms(batch, batch["labels"], drawing)
        found = {
            "val/loss": (error + self._kl_weight * divergence).mean(),
            "val/reconstruction": error.mean(),
            "val/kl": divergence.mean(),  # 0: the latent is not used at all
        }
        for name, value in found.items():
            self.log(name, value, batch_size=weight(error), sync_dist=True)

    def terms(
        self, batch: dict[str, Tensor], labels: Tensor, drawing: list[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Reconstruction error and divergence (N,) of every image."""
        target, control = self.canvas.target(batch), self.canvas.control(batch)
        mean, log_variance = self.encoder(target, labels, control)
        noise = draws.normal(drawing, mean.shape[1:], mean.device)
        decoded = self.decoder(mean + (log_variance / 2).exp() * noise, labels, control)
        return squared_error(decoded, target), divergence(mean, log_variance)

    def configure_optimizers(self) -> Any:
        return self.optimizing.of(trainable(self), self.trainer)

    def weights(self) -> dict[str, Tensor]:
        """The decoder's alone: what makes images."""
        found: dict[str, Tensor] = self.decoder.state_dict()
        return found

    def artist(self) -> OneCallArtist:
        """Draws what the decoder makes of a latent, without the pixels' own noise."""
        return OneCallArtist(self.decoder, self.canvas)


def squared_error(decoded: Tensor, target: Tensor) -> Tensor:
    """Sum (N,) of squares between images (N, C, H, W) in [-1, 1], as if they were in [0, 1]."""
    return ((decoded - target) / 2).square().flatten(1).sum(1)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL (N,) in nats from the unit normal (Kingma and Welling 2014, appendix B)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2


def build_decoder(description: Mapping[str, Any], *, seed: int) -> Decoder:
    """The decoder with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Decoder(description)


def build_encoder(description: Mapping[str, Any], *, seed: int) -> Encoder:
    """The encoder with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(description)
