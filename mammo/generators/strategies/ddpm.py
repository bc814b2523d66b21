"""Denoising diffusion in 1000 steps, predicting the velocity (v), the noise or the image (x0)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mammo.generators.strategies import STRATEGIES

if TYPE_CHECKING:
    from torch import Generator, Tensor

STEPS = 1000  # of the forward process
BASE_SIZE = 64  # side in pixels for which the published schedules were made


@STRATEGIES.register("ddpm")
class DDPM:
    """x_t = alpha_t x_0 + sigma_t noise for t = 0 .. 999, with alpha^2 + sigma^2 = 1.

    With v and x0 the schedule is the cosine one (Nichol and Dhariwal 2021) with zero signal at
    its end (Lin et al. 2024, algorithm 1), without which samples keep a medium brightness:
    mammograms are mostly black. With epsilon the signal must not vanish, so it is the linear one
    (Ho et al. 2020). Above 64 px both are shifted to more noise (Hoogeboom et al. 2023, eq. 3).
    """

    PREDICTIONS = ("v", "epsilon", "x0")
    SAMPLERS = ("dpmpp", "ddim", "ddpm")
    SCHEDULES = ("auto",)
    WEIGHTED = True

    def __init__(
        self, *, prediction: str, image_size: int, data_sd: float, schedule: str = "auto"
    ) -> None:
        self.prediction = prediction
        self.data_sd = data_sd
        self.zero_terminal = prediction != "epsilon"
        self.betas = _betas(prediction, image_size)
        self._kept = np.cumprod(1 - self.betas)  # alpha_t squared, (1000,)

    def times(self, uniform: Tensor) -> Tensor:
        """Steps t (N,) int64 for `uniform` (N,) in [0, 1)."""
        return (uniform * STEPS).long().clamp(max=STEPS - 1)

    def noisiness(self, times: Tensor) -> Tensor:
        """Share (N,) of the steps that lie before `times`."""
        return times / (STEPS - 1)

    def network_time(self, times: Tensor) -> Tensor:
        """What the network is told of the time: the step itself."""
        return times

    def predict(self, network: Callable[[Tensor], Tensor], noisy: Tensor, times: Tensor) -> Tensor:
        """The prediction, with `network` as what is left of it after the best linear guess.

        Input and output of the network have unit variance at every time, as in Karras et al.
        2022, table 1: what is mostly noise need not pass through it.
        """
        alpha, sigma = self._alpha_sigma(times, noisy)
        sd = self.data_sd
        variance = (alpha * sd) ** 2 + sigma**2
        weights: dict[str, tuple[Tensor, Tensor | float]] = {
            "v": (alpha * sigma * (1 - sd**2) / variance, sd),
            "epsilon": (sigma / variance, alpha * sd),
            "x0": (alpha * sd**2 / variance, sigma * sd),
        }
        skip, scale = weights[self.prediction]
        return skip * noisy + scale * variance.rsqrt() * network(noisy * variance.rsqrt()).float()

    def corrupt(self, images: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy images at `times` (N,) and what the network should predict, both like `images`."""
        noisy = self._scheduler.add_noise(images, noise, times)
        if self.prediction == "epsilon":
            return noisy, noise
        if self.prediction == "x0":
            return noisy, images
        return noisy, self._scheduler.get_velocity(images, noise, times)

    def denoised(self, output: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """The clean image that the network's `output` for `noisy` at `times` (N,) stands for."""
        alpha, sigma = self._alpha_sigma(times, noisy)
        if self.prediction == "epsilon":
            return (noisy - sigma * output) / alpha
        if self.prediction == "x0":
            return output
        return alpha * noisy - sigma * output

    def loss_weight(self, times: Tensor, gamma: float) -> Tensor:
        """Min-SNR weight (N,) of a squared error at `times` (Hang et al. 2023, section 3.4).

        min(SNR, gamma) is the weight of an error in x_0; an error in epsilon is one in x_0
        times sqrt(SNR), an error in v one times sqrt(SNR + 1).
        """
        import torch

        if not gamma:
            return torch.ones(len(times), device=times.device)
        alpha, sigma = self._alpha_sigma(times, times)
        snr = (alpha / sigma) ** 2
        unit = {"v": snr + 1, "epsilon": snr, "x0": torch.ones_like(snr)}[self.prediction]
        return snr.clamp(max=gamma) / unit

    def integrate(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        noise: Tensor,
        *,
        sampler: str,
        steps: int,
        generators: Sequence[Generator],
    ) -> Tensor:
        """Take `noise` (N, C, H, W) to images in `steps` calls of `denoise(noisy, times)`.

        `generators`, one an image, feed the sampler that draws (ddpm).
        """
        scheduler = self._sampling_scheduler(sampler)
        with warnings.catch_warnings():
            # diffusers' own conversion of a tensor, which numpy 2 would like spelled otherwise
            warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy")
            scheduler.set_timesteps(steps, device=noise.device)
        extra = {"generator": list(generators)} if sampler == "ddpm" else {}
        images = noise
        for step in scheduler.timesteps:
            clean = denoise(images, step.long().expand(len(images)))
            images = scheduler.step(clean, step, images, **extra).prev_sample
        return images

    def _alpha_sigma(self, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t (N, 1, ...) that broadcast over `like`."""
        import torch

        kept = torch.as_tensor(self._kept, device=times.device)[times]
        kept = kept.view(-1, *[1] * (like.ndim - 1))
        return kept.sqrt().float(), (1 - kept).sqrt().float()

    @cached_property
    def _scheduler(self) -> Any:
        from diffusers import DDPMScheduler

        return DDPMScheduler(trained_betas=self.betas, prediction_type=self._type)

    @property
    def _type(self) -> str:
        return {"v": "v_prediction", "epsilon": "epsilon", "x0": "sample"}[self.prediction]

    def _sampling_scheduler(self, sampler: str) -> Any:
        """A scheduler of diffusers that steps from clean images, first time step the last one.

        Clean images as its input keep clipping and guidance out of it.
        """
        from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

        common: dict[str, Any] = {
            "trained_betas": self.betas,
            "prediction_type": "sample",
            "timestep_spacing": "trailing",
        }
        if sampler == "ddim":
            return DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=True)
        if sampler == "ddpm":
            return DDPMScheduler(**common, clip_sample=False)
        return DPMSolverMultistepScheduler(**common, rescale_betas_zero_snr=self.zero_terminal)


def _betas(prediction: str, image_size: int) -> NDArray[np.float64]:
    """Noise added in each step, (1000,) in (0, 1]."""
    if prediction == "epsilon":
        kept = np.cumprod(1 - np.linspace(1e-4, 0.02, STEPS))
    else:
        at = np.arange(STEPS + 1) / STEPS
        curve = np.cos((at + 0.008) / 1.008 * np.pi / 2) ** 2
        kept = np.cumprod(1 - np.minimum(1 - curve[1:] / curve[:-1], 0.999))
    if image_size > BASE_SIZE:
        odds = kept / (1 - kept) * (BASE_SIZE / image_size) ** 2  # the signal-to-noise ratio
        kept = odds / (1 + odds)
    if prediction != "epsilon":
        root = np.sqrt(kept)
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        kept = root**2
    betas: NDArray[np.float64] = 1 - kept / np.concatenate([[1.0], kept[:-1]])
    return betas
