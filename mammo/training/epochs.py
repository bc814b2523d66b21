"""What happens around the batches of an epoch: seeds before, numbers and checkpoints after."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from mammo.errors import ConfigError
from mammo.run import Run
from mammo.seeds import derive

Measure = Callable[[], Mapping[str, float]]
log = logging.getLogger("mammo")


@runtime_checkable
class Hears(Protocol):
    """A learning-rate schedule that follows the monitored value."""

    def hear(self, gain: bool) -> None:
        """Take in whether the value that has just been measured is the best so far."""


class Seeds(Callback):
    """Sets the torch generators from (seed, epoch, batch) alone, in other processes also rank."""

    def __init__(self, seed: int, rank: int) -> None:
        self._seed, self._rank = seed, [rank] if rank else []

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        place = (trainer.current_epoch, batch_idx, *self._rank)
        _seed_torch(derive(self._seed, "train", *place), module.device)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        place = (dataloader_idx, batch_idx)
        _seed_torch(derive(self._seed, "validation", *place), module.device)


def _seed_torch(seed: int, device: torch.device) -> None:
    """torch.manual_seed for `device` alone: where there is no GPU, that takes half a millisecond.

    It keeps the stack of the call for every kind of device that may still come.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


class Clip(Callback):
    """Scales the gradient to a norm of `most` where it is larger.

    Lightning's own clipping refuses fused optimizers, for the sake of a loss scaler that bf16
    does without.
    """

    def __init__(self, most: float) -> None:
        self._most = most

    def on_before_optimizer_step(
        self, trainer: Trainer, module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self._most)


class EpochEnd(Checkpoint):
    """Logs an epoch, keeps the best and the last checkpoint, stops when patience ends.

    Lightning runs it after all other callbacks. The order is log, best, last: wherever a kill
    falls, the epoch is repeated from the last whole one and gives the same numbers and files.
    All processes go by the numbers of the first.
    """

    def __init__(
        self,
        tracked: Run,
        folder: Path,
        *,
        monitor: str,
        mode: str,
        patience: int,
        min_delta: float,
        measures: Sequence[Measure],
        patience_after: int = 0,
        before: int = 0,
    ) -> None:
        self.best, self.last = folder / "best.ckpt", folder / "last.ckpt"
        self.epochs = 0
        self.best_score = math.nan
        self.best_epoch = 0
        self.images_seen = 0
        self.seconds = 0.0
        self._done = False
        self._tracked, self._monitor, self._patience = tracked, monitor, patience
        self._min_delta, self._measures = min_delta, measures
        self._patience_after, self._before = patience_after, before
        self._sign = {"min": -1.0, "max": 1.0}[mode]

    def state_dict(self) -> dict[str, Any]:
        names = ("epochs", "best_score", "best_epoch", "images_seen", "seconds", "_done")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        if any(each.interval != "step" for each in trainer.lr_scheduler_configs):
            raise ValueError("learning-rate schedulers must have the interval 'step'")
        if self.epochs:
            log.info("continuing after epoch %d of %d", self.epochs, trainer.max_epochs)
        trainer.should_stop = self._done

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._started = time.monotonic()
        self._images_before = self.images_seen

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images_seen += len(batch["label"]) * trainer.world_size

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.epochs = trainer.current_epoch + 1
        elapsed = time.monotonic() - self._started
        self.seconds += elapsed
        values: dict[str, float] = trainer.strategy.broadcast(self._values(trainer, elapsed))
        self._tracked.metrics(values, step=self._before + self.epochs)
        log.info("epoch %d/%d: %s", self.epochs, trainer.max_epochs, _line(values))
        score = self._score(values, last=self.epochs == trainer.max_epochs)
        if score is not None:
            gain = self._is_gain(score)
            if gain:
                self.best_score, self.best_epoch = score, self.epochs
                self._tracked.metrics(self._best_so_far(values), step=self._before + self.epochs)
            waited = self.epochs - max(self.best_epoch, self._patience_after)
            self._done = 0 < self._patience <= waited
            for each in trainer.lr_scheduler_configs:
                if isinstance(each.scheduler, Hears):
                    each.scheduler.hear(gain)
            if gain:
                trainer.save_checkpoint(self.best)
        trainer.save_checkpoint(self.last)
        trainer.should_stop = trainer.should_stop or self._done

    def _values(self, trainer: Trainer, elapsed: float) -> dict[str, float]:
        """The numbers of the epoch, as they are logged."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for measure in self._measures:
            values |= measure()
        if trainer.optimizers:
            values["lr"] = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        values["images_seen"] = self.images_seen
        values["images_per_second"] = (self.images_seen - self._images_before) / elapsed
        return values

    def _best_so_far(self, values: Mapping[str, float]) -> dict[str, float]:
        """best/<metric> of the epoch that is the best by the monitored metric, and best/epoch."""
        told = {
            f"best/{name}": value
            for name, value in values.items()
            if (name.startswith("val/") or name == self._monitor) and math.isfinite(value)
        }
        return {**told, "best/epoch": float(self._before + self.epochs)}

    def _is_gain(self, score: float) -> bool:
        if math.isnan(self.best_score):
            return True
        return self._sign * (score - self.best_score) > self._min_delta

    def _score(self, values: Mapping[str, float], *, last: bool) -> float | None:
        """The monitored value; None in an epoch that had no such measurement."""
        if self._monitor not in values:
            if self._measures and not (last and math.isnan(self.best_score)):
                return None
            raise ConfigError(
                f"unknown metric {self._monitor!r} to monitor; choose one of {', '.join(values)}"
            )
        score = values[self._monitor]
        if not math.isfinite(score):
            raise ConfigError(
                f"{self._monitor} is {score} after epoch {self.epochs} and cannot choose the best "
                "checkpoint; lower lr or monitor another metric"
            )
        return score


def _line(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
