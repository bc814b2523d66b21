"""How parameters are moved: the optimizer and its learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

LEAST = 0.05  # of the learning rate, at the end of a generator's cosine
PATIENCE = 5  # measurements without a gain, after which a plateau lowers the rate
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}


@dataclass(frozen=True)
class Optimizing:
    """An optimizer, its linear warm-up over at most a tenth of all steps, and what follows it.

    `schedule` is cosine (down to the share `least`), constant, step (times `drop` after every
    `every` steps; 0 is two fifths of all), plateau (times `drop` after `patience` measurements
    without a gain), or cosine_plateau (cosine until `Schedule.follow`, then plateau).
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.99)
    warm_up: int = 100  # optimizer steps
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    schedule: str = "cosine"
    least: float = LEAST
    drop: float = 0.5
    every: int = 0  # optimizer steps
    patience: int = PATIENCE

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
            patience=PATIENCE,
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
        own = {} if self.optimizer == "sgd" else {"betas": self.betas}
        return OPTIMIZERS[self.optimizer](
            moved, lr=self.lr, weight_decay=self.weight_decay, fused=fused or None, **own
        )

    def share(self, step: int, total: int) -> float:
        """Share of the learning rate at `step` of `total` optimizer steps, in [0, 1]."""
        warm_up = max(1, min(self.warm_up, total // 10))
        if step < warm_up:
            return (step + 1) / warm_up
        done = min(1.0, (step - warm_up) / max(1, total - warm_up))
        if self.schedule in ("cosine", "cosine_plateau"):
            return self.least + (1 - self.least) * (1 + math.cos(math.pi * done)) / 2
        if self.schedule == "step":
            return self.drop ** steps_down(step, total, self.every)
        return 1.0


def steps_down(step: int, total: int, every: int = 0) -> int:
    """How often `every` steps are over at `step`; 0 stands for two fifths of `total`.

    Over the 5 epochs that it is known from, the latter is torch's StepLR(step_size=2).
    """
    return step // every if every else 5 * step // (2 * total)


class Schedule(torch.optim.lr_scheduler.LRScheduler):
    """The learning rate over the steps; with `plateau` it falls when nothing is gained.

    It hears once for every measurement of the monitored value (mammo.training.epochs.Hears),
    before the checkpoint is written. A group's own rate is in `base_lrs`, which may be changed.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, optimizing: Optimizing, total: int
    ) -> None:
        self._share: Callable[[int], float] = lambda step: optimizing.share(step, total)
        self._drop, self._patience = optimizing.drop, optimizing.patience
        self.follows = optimizing.schedule == "plateau"
        self._may_follow = optimizing.schedule == "cosine_plateau"
        self.held = 0.0  # share of the rate from which on it follows; 0 for that of the steps
        self.factor, self.waited = 1.0, 0
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        share = (self.held or self._share(self.last_epoch)) * self.factor
        return [each * share for each in self.base_lrs]

    def hear(self, gain: bool) -> None:
        """Take in whether the value that has just been measured is the best so far."""
        self.waited = 0 if gain else self.waited + 1
        if self.follows and self.waited == self._patience:
            self.factor, self.waited = self.factor * self._drop, 0
            self.renew()

    def follow(self) -> None:
        """From here on cosine_plateau holds its rate and lowers it when nothing is gained."""
        if self._may_follow and not self.follows:
            self.follows, self.held, self.waited = True, self._share(self.last_epoch), 0

    def renew(self) -> None:
        """Write the rates of the next step again, which have been set already."""
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        left_out = ("optimizer", "_share")
        return {key: value for key, value in vars(self).items() if key not in left_out}


def _tensors(group: Any) -> list[torch.Tensor]:
    return list(group["params"]) if isinstance(group, Mapping) else [group]
