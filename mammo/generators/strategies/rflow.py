"""Rectified flow: straight lines from images to noise, with the network as their velocity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mammo.generators.strategies import STRATEGIES
from mammo.generators.strategies.gaussian import HIGH, LOW, Gaussian, shift, spread

if TYPE_CHECKING:
    from torch import Tensor


@STRATEGIES.register("rflow")
class RectifiedFlow(Gaussian):
    """x_t = (1 - t) x_0 + t noise, velocity noise - x_0 (Liu et al. 2023, eq. 1), t in (0, 1).

    Times are logit-normal, and shifted by the side of images in two dimensions from 64 px on
    (Esser et al. 2024, eq. 19 and 23, where sqrt(m / n) is the ratio of sides). MONAI's scheduler
    with its own settings draws uniform times and counts voxels, from 32 x 32 x 32 on.
    """

    PREDICTIONS = ("v",)
    SCHEDULES = ("auto",)
    WEIGHTED = False

    def __init__(
        self,
        *,
        prediction: str,
        image_size: int,
        data_sd: float,
        data_mean: float = 0.0,
        schedule: str = "auto",
    ) -> None:
        super().__init__(data_sd=data_sd, data_mean=data_mean)
        self.shift = shift(image_size)

    def times(self, uniform: Tensor) -> Tensor:
        """Logit-normal times (N,) for `uniform` (N,) in [0, 1) (Esser et al. 2024, eq. 19)."""
        import torch

        normal = torch.special.ndtri(uniform.double().clamp(1e-6, 1 - 1e-6))
        return self._shifted(torch.sigmoid(normal)).float()

    def network_time(self, times: Tensor) -> Tensor:
        """What the network is told of the time, on the scale 0 to 1000 of its embedding."""
        return times * 1000

    def signal(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """1 - t and t, float64 (N,)."""
        return 1 - times.double(), times.double()

    def parts(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity dx_t / dt = noise - x_0."""
        one = alpha + sigma
        return -one, one

    def loss_weight(self, times: Tensor, gamma: float) -> Tensor:
        """One: the times are weighted by how they are drawn."""
        import torch

        return torch.ones_like(times)

    def line(self, count: int) -> Tensor:
        """1, where all is noise, and the times at which sigma / alpha is as `spread` says."""
        noise = spread(count, self.shift * HIGH, LOW)
        times = noise / (1 + noise)
        times[0] = 1
        return times.float()

    def _shifted(self, times: Tensor) -> Tensor:
        """More noise for larger images: t / (1 - t) times the shift (Esser et al. 2024, eq. 23)."""
        return self.shift * times / (1 + (self.shift - 1) * times)
