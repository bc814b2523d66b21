"""How a generator's parameters are moved: the optimizer and its learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

LEAST = 0.05  # of the learning rate, at the end of the cosine


@dataclass(frozen=True)
class Optimizing:
    """AdamW with a linear warm-up of `warm_up` steps, at most a tenth of all, and a cosine."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.99)
    warm_up: int = 100

    def of(self, parameters: Iterable[Any], trainer: Any) -> Any:
        """What `configure_optimizers` returns for `parameters`."""
        optimizer = torch.optim.AdamW(parameters, lr=self.lr, betas=self.betas)
        total = int(trainer.estimated_stepping_batches)
        warm_up = max(1, min(self.warm_up, total // 10))

        def share(step: int) -> float:
            if step < warm_up:
                return (step + 1) / warm_up
            done = (step - warm_up) / max(1, total - warm_up)
            return LEAST + (1 - LEAST) * (1 + math.cos(math.pi * min(1.0, done))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
