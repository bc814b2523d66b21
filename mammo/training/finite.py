"""Stops a training whose loss is no longer a number, before anything is kept of what follows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mammo.errors import ConfigError

EVERY = 50  # batches between two looks at a GPU's losses: each look waits for it


class FiniteLoss(Callback):
    """Names the first batch of an epoch whose loss is not finite, and ends the training there.

    The checkpoints are of epochs that ended before it, and stay.
    """

    def __init__(self, folder: Path, *, accumulate: int) -> None:
        self._last, self._accumulate = folder / "last.ckpt", accumulate
        self._first = torch.tensor(-1)  # of this epoch's batches; stays on the device

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._first = torch.tensor(-1, device=module.device)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not isinstance(outputs, Mapping) or "loss" not in outputs:
            return  # a module that optimizes by hand, as it logs what it likes
        wrong = ~torch.isfinite(outputs["loss"].detach()) & (self._first < 0)
        self._first = torch.where(wrong, batch_idx, self._first)
        looks = self._first.device.type == "cpu" or (batch_idx + 1) % EVERY == 0
        if (looks or trainer.is_last_batch) and int(self._first) >= 0:
            self._stop(trainer, int(self._first))

    def _stop(self, trainer: Trainer, place: int) -> None:
        epoch = trainer.current_epoch
        kept = f"the checkpoint of epoch {epoch} stays in {self._last}; " if epoch else ""
        raise ConfigError(
            f"the training loss is not finite in batch {place // self._accumulate + 1} of epoch "
            f"{epoch + 1}; {kept}lower lr, or use precision 32"
        )
