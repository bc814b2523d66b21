"""Averaged weights: what validates, samples and is saved."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.callbacks import WeightAveraging


class Averaging(WeightAveraging):
    """Exponential moving average of the weights, used in validation and kept in checkpoints.

    The decay of update n is min(`decay`, (1 + n) / (10 + n)), so that a short run is not an
    average over its random start (the warm-up of Abadi et al. 2015, ExponentialMovingAverage).
    Buffers (running means of normalisation) are copied, not averaged.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=_averager(decay))


def _averager(decay: float) -> Callable[[Any, Any, Any], None]:
    @torch.no_grad()
    def average(means: Any, values: Any, count: torch.Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(means, values, 1 - min(decay, (1 + n) / (10 + n)))

    return average
