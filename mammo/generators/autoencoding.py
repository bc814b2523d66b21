"""Training of an autoencoder whose latents a diffusion can learn, and drawing what it restores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from mammo.generators import draws
from mammo.generators.adversary import PatchCritic, fooling, telling
from mammo.generators.artist import Asked, call_size, in_calls
from mammo.generators.autoencoders import Autoencoder
from mammo.generators.learner import trainable, weight
from mammo.generators.perceptual import Distance
from mammo.training.optimizing import Optimizing

ALONE = 0.25  # share of the training before the critic is listened to: it has to learn first
CRITIC_BETAS = (0.5, 0.9)


class Autoencoding(LightningModule):
    """Absolute error, divergence from the unit normal, perceptual distance, and a critic to fool.

    The divergence of an image is summed over its latents (Rombach et al. 2022, section 3.1), the
    others are means. Without a critic, or a perceptual distance, the loss does without.
    """

    def __init__(
        self,
        network: Autoencoder,
        critic: PatchCritic | None,
        distance: Distance | None,
        *,
        shape: tuple[int, int, int],
        kl_weight: float,
        adversarial_weight: float,
        perceptual_weight: float,
        optimizing: Optimizing,
        gradient_clip: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.critic = network, critic
        self.optimizing = optimizing
        self._distance, self._shape = distance, shape
        self._kl, self._adversarial, self._perceptual = (
            kl_weight,
            adversarial_weight,
            perceptual_weight,
        )
        self._gradient_clip, self._seed = gradient_clip, seed

    def training_step(self, batch: dict[str, Tensor], index: int) -> None:
        images, rows = batch["image"], batch["row"]
        movers = self.optimizers()
        optimizers = movers if isinstance(movers, list) else [movers]
        done = self.trainer.global_step // len(optimizers)
        drawing = draws.generators(self._seed, "autoencoder", done, rows=rows)
        listening = done >= ALONE * self.trainer.estimated_stepping_batches
        restored = self._train_network(optimizers[0], images, drawing, listening=listening)
        if self.critic is not None:
            self._train_critic(optimizers[1], images, restored.detach())
        schedules = self.lr_schedulers()
        for schedule in schedules if isinstance(schedules, list) else [schedules]:
            schedule.step()

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        """The error of what the mean latents stand for: nothing is drawn."""
        images = batch["image"]
        restored = self.network.decode(self.network.encode(images)[0]).float()
        squared = (restored.clamp(0, 1) - images).square().flatten(1).mean(1)
        told = {"batch_size": weight(images), "sync_dist": True}
        self.log("val/loss", (restored - images).abs().mean(), **told)
        self.log("val/psnr", -10 * squared.clamp(min=1e-10).log10().mean(), **told)

    def configure_optimizers(self) -> Any:
        made = [self.optimizing.of(trainable(self.network), self.trainer)]
        if self.critic is not None:
            critic = replace(self.optimizing, betas=CRITIC_BETAS)
            made.append(critic.of(trainable(self.critic), self.trainer))
        return tuple(made) if len(made) > 1 else made[0]

    def weights(self) -> dict[str, Tensor]:
        """The autoencoder's alone."""
        found: dict[str, Tensor] = self.network.state_dict()
        return found

    def artist(self) -> RestoringArtist:
        return RestoringArtist(self.network, self._shape)

    def _train_network(
        self, optimizer: Any, images: Tensor, drawing: list[torch.Generator], *, listening: bool
    ) -> Tensor:
        """A step of the autoencoder; returns what it restored."""
        self.toggle_optimizer(optimizer)
        mean, sd = self.network.encode(images)
        assert sd is not None
        noise = draws.normal(drawing, mean.shape[1:], mean.device)
        restored = self.network.decode(mean + sd * noise)
        error, far = (restored - images).abs().mean(), divergence(mean, sd).mean()
        loss = error + self._kl * far
        told = {"train/reconstruction": error, "train/divergence": far}
        if self._distance is not None:
            looks = self._distance(restored, images).mean()
            loss = loss + self._perceptual * looks
            told["train/perceptual"] = looks
        if self.critic is not None and listening:
            judged = fooling(self.critic(restored))
            loss = loss + self._adversarial * judged
            told["train/adversarial"] = judged
        self._step(optimizer, loss)
        self._log(len(images), {"train/loss": loss, **told})
        return restored

    def _train_critic(self, optimizer: Any, images: Tensor, restored: Tensor) -> None:
        assert self.critic is not None
        self.toggle_optimizer(optimizer)
        loss = telling(self.critic(images), self.critic(restored))
        self._step(optimizer, loss)
        self._log(len(images), {"train/critic": loss})

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self._gradient_clip:
            self.clip_gradients(optimizer, self._gradient_clip, "norm")
        optimizer.step()
        self.untoggle_optimizer(optimizer)

    def _log(self, images: int, values: dict[str, Tensor]) -> None:
        told = {"on_step": False, "on_epoch": True, "batch_size": images, "sync_dist": True}
        for name, value in values.items():
            self.log(name, value.detach(), **told)


class RestoringArtist:
    """Draws the images that control it, through latents of their seeds and back."""

    samplers: tuple[str, ...] = ()

    def __init__(self, network: Autoencoder, shape: tuple[int, int, int]) -> None:
        self.network, self.shape = network, shape

    @torch.inference_mode()
    def draw(self, asked: Asked) -> Tensor:
        """Restored images (N, C, H, W) float32 in [0, 1] on the CPU."""
        device = next(self.network.parameters()).device
        was_training = self.network.training
        self.network.eval()
        drawn = in_calls(
            asked, call_size(self.shape, device), lambda some: self._call(some, device)
        )
        self.network.train(was_training)
        return drawn

    def _call(self, asked: Asked, device: torch.device) -> Tensor:
        assert asked.control is not None  # the mode is reconstruct
        mean, sd = self.network.encode((asked.control.to(device) + 1) / 2)
        assert sd is not None
        noise = asked.noise(mean.shape[1:], asked.generators()).to(device)
        return self.network.decode(mean + sd * noise).clamp(0, 1)


def divergence(mean: Tensor, sd: Tensor) -> Tensor:
    """Kullback-Leibler divergence (N,) in nats of normals (N, ...) from the unit normal."""
    variance = sd.square()
    each = (mean.square() + variance - variance.log() - 1) / 2
    return each.flatten(1).sum(1)
