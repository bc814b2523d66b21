"""The forward process that a base was trained with, as a strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mammo.errors import ConfigError
from mammo.generators.strategies.ddpm import DDPM, STEPS

if TYPE_CHECKING:
    from torch import Tensor


class BaseNoise(DDPM):
    """DDPM by the `betas` (1000,) of a base's scheduler, its UNet predicting as it was trained.

    The UNet has learned the whole prediction, so nothing is put before or behind it.
    """

    def __init__(self, betas: Sequence[float], prediction: str) -> None:
        if len(betas) != STEPS:
            raise ConfigError(
                f"the base's scheduler has {len(betas)} steps; {STEPS} are needed, as Stable "
                "Diffusion has them"
            )
        super().__init__(prediction=prediction, image_size=1, data_sd=1.0)
        self.kept = np.cumprod(1 - np.asarray(betas, np.float64)).astype(np.float64)

    def predict(self, network: Callable[[Tensor], Tensor], noisy: Tensor, times: Tensor) -> Tensor:
        """What the network says."""
        return network(noisy).float()

    def line(self, count: int) -> Tensor:
        """Steps evenly spread from the last on, as pipelines of Stable Diffusion take them.

        That is the trailing spacing of Lin et al. 2024, table 2.
        """
        import torch

        count = min(count, STEPS)
        return torch.tensor([round(STEPS * (1 - place / count)) - 1 for place in range(count)])
