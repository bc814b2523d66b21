"""Gradual unfreezing: a further block of the backbone trains when the monitored value stands."""

import logging
import math
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mammo.classifiers.plans import Group
from mammo.training.optimizing import Schedule

log = logging.getLogger("mammo")


@dataclass(frozen=True)
class Patience:
    """When a block follows: after how many epochs without a gain, or how far below the best.

    Never in the first `after` epochs, nor before the last block has trained for `cooldown`;
    `epochs` or `drop` 0 is no reason.
    """

    after: int
    epochs: int
    drop: float
    cooldown: int = 0


class Unfreezing(Callback):
    """Lets the blocks of `groups` train one by one, from the head (depth 0) to the image.

    It decides at the end of an epoch, for the next. With each block the head's rate is multiplied
    by `head_factor`; after the last one a schedule that can do so follows the monitored value.
    A run that is killed goes on with the blocks it had.
    """

    def __init__(
        self,
        groups: list[Group],
        *,
        monitor: str,
        mode: str,
        min_delta: float,
        patience: Patience,
        head_factor: float = 1.0,
    ) -> None:
        self.depth = 0  # of the deepest block that trains
        self.best = math.nan
        self.waited = 0  # epochs since the best, or since the last block where that is later
        self.trained = 0  # epochs since the last block
        self._groups, self._deepest = groups, max(group["depth"] for group in groups)
        self._monitor, self._sign = monitor, {"min": -1.0, "max": 1.0}[mode]
        self._min_delta, self._patience, self._head_factor = min_delta, patience, head_factor

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("depth", "best", "waited", "trained")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._thaw()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        module.log("unfrozen_blocks", float(self.depth))
        value = float(trainer.callback_metrics[self._monitor])
        gain = self._sign * (value - self.best)
        self.trained += 1
        if math.isnan(self.best) or gain > self._min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self._is_time(trainer.current_epoch + 1, -gain):
            self.depth, self.waited, self.trained = self.depth + 1, 0, 0
            self._thaw()
            log.info("block %d of %d trains from here on", self.depth, self._deepest)
            self._tell(trainer.lr_scheduler_configs[0].scheduler)

    def _is_time(self, epochs: int, fallen: float) -> bool:
        asked = self._patience
        if self.depth == self._deepest or epochs < asked.after:
            return False
        if self.depth and self.trained < asked.cooldown:
            return False
        stands = 0 < asked.epochs <= self.waited
        return stands or 0 < asked.drop <= fallen

    def _thaw(self) -> None:
        for group in self._groups:
            for parameter in group["params"]:
                parameter.requires_grad_(group["depth"] <= self.depth)

    def _tell(self, schedule: Any) -> None:
        """Lower the rate of the head, and let the schedule follow once all blocks train."""
        assert isinstance(schedule, Schedule)
        for number, group in enumerate(schedule.optimizer.param_groups):
            if group["depth"] == 0:
                schedule.base_lrs[number] *= self._head_factor
        if self.depth == self._deepest:
            schedule.follow()
        schedule.renew()
