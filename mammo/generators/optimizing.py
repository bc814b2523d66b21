"""How a generator's parameters are moved: the optimizer and its learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

LEAST = 0.05  # of the learning rate, at the end of the cosine
OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


@dataclass(frozen=True)
class Optimizing:
    """An optimizer, its linear warm-up over at most a tenth of all steps, and what follows it."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.99)
    warm_up: int = 100  # optimizer steps
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    schedule: str = "cosine"

    @classmethod
    def asked(
        cls, settings: Mapping[str, Any], lr: float, betas: tuple[float, float] = (0.9, 0.99)
    ) -> Optimizing:
        """What the settings of train_generator ask for; `lr` is the family's own."""
        return cls(
            settings["lr"] or lr,
            betas,
            settings["warm_up"],
            settings["optimizer"],
            settings["weight_decay"],
            settings["lr_schedule"],
        )

    def of(self, parameters: Iterable[Any], trainer: Any) -> Any:
        """What `configure_optimizers` returns for `parameters`."""
        optimizer = self.mover(parameters)
        schedule = Schedule(optimizer, self, int(trainer.estimated_stepping_batches))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def mover(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        """The optimizer alone, at the full learning rate; one kernel for all where there is one."""
        moved = list(parameters)
        tensors = [each for group in moved for each in _tensors(group)]
        fused = {each.device.type for each in tensors} in ({"cuda"}, {"cpu"})
        made: torch.optim.Optimizer = OPTIMIZERS[self.optimizer](
            moved,
            lr=self.lr,
            betas=self.betas,
            weight_decay=self.weight_decay,
            fused=fused or None,
        )
        return made

    def share(self, step: int, total: int) -> float:
        """Share of the learning rate at `step` of `total` optimizer steps, in (0, 1]."""
        warm_up = max(1, min(self.warm_up, total // 10))
        if step < warm_up:
            return (step + 1) / warm_up
        done = min(1.0, (step - warm_up) / max(1, total - warm_up))
        if self.schedule == "cosine":
            return LEAST + (1 - LEAST) * (1 + math.cos(math.pi * done)) / 2
        if self.schedule == "step":
            return steps_down(step, total)
        return 1.0


def steps_down(step: int, total: int) -> float:
    """Half the learning rate after each two fifths of `total` steps.

    Over the 5 epochs that it is known from, that is torch's StepLR(step_size=2, gamma=0.5).
    """
    return float(0.5 ** (5 * step // (2 * total)))


class Schedule(torch.optim.lr_scheduler.LRScheduler):
    """The learning rate over the steps; with `plateau` it halves when nothing is gained.

    It hears once for every measurement of the monitored value (mammo.training.epochs.Hears),
    before the checkpoint is written, and halves after `PATIENCE` of them without a new best.
    """

    PATIENCE = 5

    def __init__(
        self, optimizer: torch.optim.Optimizer, optimizing: Optimizing, total: int
    ) -> None:
        self._share: Callable[[int], float] = lambda step: optimizing.share(step, total)
        self._follows = optimizing.schedule == "plateau"
        self.factor, self.waited = 1.0, 0
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        share = self._share(self.last_epoch) * self.factor
        return [each * share for each in self.base_lrs]

    def hear(self, gain: bool) -> None:
        """Take in whether the value that has just been measured is the best so far."""
        self.waited = 0 if gain else self.waited + 1
        if self._follows and self.waited == self.PATIENCE:
            self.factor, self.waited = self.factor / 2, 0
            for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
                group["lr"] = lr  # of the next step, which has been set already

    def state_dict(self) -> dict[str, Any]:
        left_out = ("optimizer", "_share")
        return {key: value for key, value in vars(self).items() if key not in left_out}


def _tensors(group: Any) -> list[torch.Tensor]:
    return list(group["params"]) if isinstance(group, Mapping) else [group]
