"""Denoising diffusion in 1000 steps, predicting the velocity (v), the noise or the image (x0)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mammo.generators.strategies import STRATEGIES
from mammo.generators.strategies.gaussian import HIGH, LOW, Gaussian, shift, spread

if TYPE_CHECKING:
    import torch
    from torch import Tensor

STEPS = 1000  # of the forward process


@STRATEGIES.register("ddpm")
class DDPM(Gaussian):
    """x_t = alpha_t x_0 + sigma_t noise for t = 0 .. 999, with alpha^2 + sigma^2 = 1.

    The schedule of noise is `linear` (Ho et al. 2020, section 4), `cosine` (Nichol and Dhariwal
    2021, eq. 17) or `shifted`, the cosine one for images above 64 px (Hoogeboom et al. 2023,
    eq. 3); `auto` is linear with epsilon, else cosine, and shifted. With v and x0 any of them ends
    with zero signal (Lin et al. 2024, algorithm 1), without which samples keep a medium
    brightness: mammograms are mostly black. With epsilon the signal never vanishes, for pure
    noise says nothing about an image.
    """

    PREDICTIONS = ("v", "epsilon", "x0")
    SCHEDULES = ("auto", "linear", "cosine", "shifted")
    WEIGHTED = True

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
        self.prediction = prediction
        kept = SCHEDULED[_named(schedule, prediction)]()
        self.shift = shift(image_size) if schedule in ("auto", "shifted") else 1.0
        kept = _shifted(kept, self.shift)
        self.kept = kept if prediction == "epsilon" else _without_end(kept)
        self._tables: dict[torch.device, Tensor] = {}

    def times(self, uniform: Tensor) -> Tensor:
        """Steps t (N,) int64 for `uniform` (N,) in [0, 1)."""
        return (uniform * STEPS).long().clamp(max=STEPS - 1)

    def network_time(self, times: Tensor) -> Tensor:
        """What the network is told of the time: the step itself."""
        return times

    def signal(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t, float64 (N,), of a table with 1000 rows."""
        import torch

        if times.device not in self._tables:
            self._tables[times.device] = torch.tensor(self.kept, device=times.device)
        kept = self._tables[times.device][times]
        return kept.sqrt(), (1 - kept).sqrt()

    def parts(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """v = alpha noise - sigma x_0 (Salimans and Ho 2022, appendix D), noise, or x_0."""
        nothing, all_of_it = 0 * alpha, 0 * alpha + 1
        return {
            "v": (-sigma, alpha),
            "epsilon": (nothing, all_of_it),
            "x0": (all_of_it, nothing),
        }[self.prediction]

    def loss_weight(self, times: Tensor, gamma: float) -> Tensor:
        """Min-SNR weight (N,) of a squared error at `times` (Hang et al. 2023, section 3.4).

        min(SNR, gamma) is the weight of an error in x_0; an error in epsilon is one in x_0 times
        sqrt(SNR), an error in v one times sqrt(SNR + 1). That would be 0 where no signal is left,
        and the step that every sample begins with would go untrained; there it is 1, as trainers
        of Stable Diffusion with zero terminal SNR have it.
        """
        import torch

        if not gamma:
            return torch.ones(len(times), device=times.device)
        alpha, sigma = self.signal(times)
        snr = (alpha / sigma) ** 2
        unit = {"v": snr + 1, "epsilon": snr, "x0": torch.ones_like(snr)}[self.prediction]
        return torch.where(snr == 0, 1.0, snr.clamp(max=gamma) / unit).float()

    def line(self, count: int) -> Tensor:
        """The last step, where all is noise (Lin et al. 2024, section 3.3), then those of `spread`.

        A step that falls on another moves to the next free one, so that 1000 are all.
        """
        import torch

        count = min(count, STEPS)
        noise = np.sqrt(1 / self.kept[:-1] - 1)  # sigma / alpha, rising
        wanted = spread(count, self.shift * HIGH, LOW).numpy()[:, None]
        steps = np.abs(np.log(noise) - np.log(wanted)).argmin(1)
        steps[0] = STEPS - 1
        for place in range(1, count):
            steps[place] = min(steps[place], steps[place - 1] - 1)
        return torch.from_numpy(np.maximum(steps, np.arange(count)[::-1]))


def _linear() -> NDArray[np.float64]:
    """alpha_t squared, (1000,), falling."""
    return np.cumprod(1 - np.linspace(1e-4, 0.02, STEPS)).astype(np.float64)


def _cosine() -> NDArray[np.float64]:
    """alpha_t squared, (1000,), falling; no step adds more noise than 0.999."""
    at = np.arange(STEPS + 1) / STEPS
    curve = np.cos((at + 0.008) / 1.008 * np.pi / 2) ** 2
    kept: NDArray[np.float64] = np.cumprod(1 - np.minimum(1 - curve[1:] / curve[:-1], 0.999))
    return kept


SCHEDULED = {"linear": _linear, "cosine": _cosine}


def _named(schedule: str, prediction: str) -> str:
    """The schedule before any shift."""
    if schedule == "auto":
        return "linear" if prediction == "epsilon" else "cosine"
    return "cosine" if schedule == "shifted" else schedule


def _shifted(kept: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """`kept` with sigma / alpha times `factor`."""
    odds = kept / (1 - kept) / factor**2  # the signal-to-noise ratio
    shifted: NDArray[np.float64] = odds / (1 + odds)
    return shifted


def _without_end(kept: NDArray[np.float64]) -> NDArray[np.float64]:
    """`kept` with alpha moved and stretched so that its last is 0 and its first stays."""
    alpha = np.sqrt(kept)
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    stretched: NDArray[np.float64] = alpha**2
    return stretched
