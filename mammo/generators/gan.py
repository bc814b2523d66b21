"""Adversarial training: a Wasserstein distance with a gradient penalty (Gulrajani et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from mammo.generators import draws
from mammo.generators.canvas import Canvas
from mammo.generators.learner import trainable, weight
from mammo.generators.one_call import OneCallArtist
from mammo.training.optimizing import Optimizing, Schedule

CRITIC, MAKER = 0, 1  # places of the optimizers


class Adversarial(LightningModule):
    """A critic that tells real images from made ones, and a maker that learns from it.

    Each batch trains the critic once; after every `critic_steps`-th the maker takes a step too,
    with latents of its own. The state of this turn is the count of optimizer steps, so that a run
    that is continued goes on in the same turn. `gradient_clip` bounds the norm of each step's
    gradient, 0 does not.
    """

    def __init__(
        self,
        maker: Any,
        critic: Any,
        canvas: Canvas,
        *,
        labels: tuple[int, ...],
        optimizing: Optimizing,
        critic_steps: int,
        gradient_penalty: float,
        gradient_clip: float,
        label_dropout: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.maker, self.critic, self.canvas = maker, critic, canvas
        self.optimizing = optimizing
        self._sizes = labels
        self._critic_steps, self._penalty = critic_steps, gradient_penalty
        self._gradient_clip = gradient_clip
        self._label_dropout, self._seed = label_dropout, seed

    def training_step(self, batch: dict[str, Tensor], index: int) -> None:
        done = self.trainer.global_step  # of both optimizers
        real, control, rows = self.canvas.target(batch), self.canvas.control(batch), batch["row"]
        drawing = draws.generators(self._seed, "gan", done, rows=rows)
        labels = draws.hide(batch["labels"], self._sizes, drawing, self._label_dropout)
        self._train_critic(real, labels, control, drawing)
        if done % (self._critic_steps + 1) == self._critic_steps - 1:
            self._train_maker(labels, control, drawing)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        """What the critic estimates of the distance: it says how the game stands, no more.

        It falls when images get better and when the critic gets worse, and is no measure to
        choose a checkpoint by. The latent of a row is the same in every epoch and every run.
        """
        real, control, labels = (
            self.canvas.target(batch),
            self.canvas.control(batch),
            batch["labels"],
        )
        drawing = draws.generators(0, "validation latent", rows=batch["row"])
        made = self.maker(self._latent(drawing), labels, control)
        distance = self.critic(real, labels, control) - self.critic(made, labels, control)
        self.log("val/loss", distance.mean(), batch_size=weight(real), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Each learning rate follows its schedule over the steps of its own optimizer."""
        batches = int(self.trainer.estimated_stepping_batches)
        turns = ((self.critic, batches), (self.maker, max(1, batches // self._critic_steps)))
        found = []
        for network, steps in turns:
            optimizer = self.optimizing.mover(trainable(network))
            schedule = Schedule(optimizer, self.optimizing, steps)
            scheduled = {"scheduler": schedule, "interval": "step"}
            found.append({"optimizer": optimizer, "lr_scheduler": scheduled})
        return tuple(found)

    def weights(self) -> dict[str, Tensor]:
        """The maker's alone."""
        found: dict[str, Tensor] = self.maker.state_dict()
        return found

    def artist(self) -> OneCallArtist:
        return OneCallArtist(self.maker, self.canvas)

    def _train_critic(
        self,
        real: Tensor,
        labels: Tensor,
        control: Tensor | None,
        drawing: list[torch.Generator],
    ) -> None:
        with torch.no_grad():
            made = self.maker(self._latent(drawing), labels, control)
        mix = draws.uniform(drawing, real.device)

        def judge(images: Tensor) -> Tensor:
            score: Tensor = self.critic(images, labels, control)
            return score

        with self._step(CRITIC) as step:
            distance = (judge(real) - judge(made)).mean()
            penalty = gradient_penalty(judge, real, made, mix).mean()
            loss = self._penalty * penalty - distance
            step(loss)
        self._log(
            len(real),
            {"train/loss": loss, "train/distance": distance, "train/gradient_penalty": penalty},
        )

    def _train_maker(
        self, labels: Tensor, control: Tensor | None, drawing: list[torch.Generator]
    ) -> None:
        with self._step(MAKER) as step:
            made = self.maker(self._latent(drawing), labels, control)
            step(-self.critic(made, labels, control).mean())

    @contextmanager
    def _step(self, place: int) -> Iterator[Callable[[Tensor], None]]:
        """Hands out what takes the step of optimizer `place` down a loss; others do not move."""
        optimizer, schedule = self.optimizers()[place], self.lr_schedulers()[place]

        def step(loss: Tensor) -> None:
            optimizer.zero_grad()
            self.manual_backward(loss)
            if self._gradient_clip:
                self.clip_gradients(optimizer, self._gradient_clip, "norm")
            optimizer.step()
            schedule.step()

        self.toggle_optimizer(optimizer)
        yield step
        self.untoggle_optimizer(optimizer)

    def _latent(self, drawing: list[torch.Generator]) -> Tensor:
        return draws.normal(drawing, (self.maker.latent_dim,), self.device)

    def _log(self, images: int, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.log(
                name,
                value.detach(),
                on_step=False,
                on_epoch=True,
                batch_size=images,
                sync_dist=True,
            )


def gradient_penalty(
    judge: Callable[[Tensor], Tensor], real: Tensor, made: Tensor, mix: Tensor
) -> Tensor:
    """(|gradient of `judge`| - 1)^2 of every image (N,), at a `mix` (N,) of `real` and `made`.

    Gulrajani et al. 2017, eq. 3: `mix` is uniform in [0, 1], the norm Euclidean over all values
    of an image in [-1, 1].
    """
    share = mix.view(-1, 1, 1, 1)
    between = (share * real + (1 - share) * made).detach().requires_grad_()
    with torch.autocast(real.device.type, enabled=False):  # a norm near 1 needs float32
        (slope,) = torch.autograd.grad(judge(between).sum(), between, create_graph=True)
    lengths: Tensor = slope.flatten(1).norm(dim=1)
    return (lengths - 1).square()
