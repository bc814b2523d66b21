"""Rectified flow: straight lines from images to noise, with the network as their velocity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from mammo.generators.strategies import STRATEGIES

if TYPE_CHECKING:
    from torch import Generator, Tensor

BASE_SIZE = 64  # side in pixels that needs no shift of time


@STRATEGIES.register("rflow")
class RectifiedFlow:
    """x_t = (1 - t) x_0 + t noise, velocity noise - x_0 (Liu et al. 2023), t in (0, 1)."""

    PREDICTIONS = ("v",)
    SAMPLERS = ("euler",)
    SCHEDULES = ("auto",)
    WEIGHTED = False

    def __init__(
        self, *, prediction: str, image_size: int, data_sd: float, schedule: str = "auto"
    ) -> None:
        self.data_sd = data_sd
        self.shift = max(1.0, image_size / BASE_SIZE)

    def times(self, uniform: Tensor) -> Tensor:
        """Logit-normal times (N,) for `uniform` (N,) in [0, 1) (Esser et al. 2024, eq. 19)."""
        import torch

        normal = torch.special.ndtri(uniform.double().clamp(1e-6, 1 - 1e-6))
        return self._shifted(torch.sigmoid(normal)).float()

    def noisiness(self, times: Tensor) -> Tensor:
        """The time itself."""
        return times

    def network_time(self, times: Tensor) -> Tensor:
        """What the network is told of the time, on the scale 0 to 1000 of its embedding."""
        return times * 1000

    def predict(self, network: Callable[[Tensor], Tensor], noisy: Tensor, times: Tensor) -> Tensor:
        """The velocity, with `network` as what is left of it after the best linear guess.

        Input and output of the network have unit variance at every time, as in Karras et al.
        2022, table 1.
        """
        at = times.view(-1, *[1] * (noisy.ndim - 1))
        variance = ((1 - at) * self.data_sd) ** 2 + at**2
        skip = (at - (1 - at) * self.data_sd**2) / variance
        rest = network(noisy * variance.rsqrt()).float()
        return skip * noisy + self.data_sd * variance.rsqrt() * rest

    def corrupt(self, images: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy images at `times` (N,) and the velocity there, both like `images`."""
        at = times.view(-1, *[1] * (images.ndim - 1))
        return (1 - at) * images + at * noise, noise - images

    def denoised(self, output: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """The clean image at the end of the straight line with velocity `output`."""
        return noisy - times.view(-1, *[1] * (noisy.ndim - 1)) * output

    def loss_weight(self, times: Tensor, gamma: float) -> Tensor:
        """One: the times are weighted by how they are drawn."""
        import torch

        return torch.ones_like(times)

    def integrate(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        noise: Tensor,
        *,
        sampler: str,
        steps: int,
        generators: Sequence[Generator],
    ) -> Tensor:
        """Take `noise` (N, C, H, W) to images in `steps` Euler steps of `denoise(noisy, times)`."""
        import torch

        line = self._shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64)).tolist()
        images = noise
        for now, after in pairwise(line):
            clean = denoise(images, images.new_full((len(images),), now))
            images = clean + (images - clean) * (after / now)
        return images

    def _shifted(self, times: Tensor) -> Tensor:
        """More noise for larger images (Esser et al. 2024, eq. 23)."""
        return self.shift * times / (1 + (self.shift - 1) * times)
