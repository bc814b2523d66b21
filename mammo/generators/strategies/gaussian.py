"""What strategies with Gaussian noise share: x_t = alpha_t x_0 + sigma_t noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mammo.generators.strategies.samplers import SAMPLERS, Path, places

if TYPE_CHECKING:
    from torch import Generator, Tensor

BASE_SIZE = 64  # side in pixels for which the published settings were found
# sigma / alpha of the second call and of the last, up to 64 px. At the first only noise is seen;
# 80 hides even brightness (a deviation of 0.2 over 64 x 64 px shows up to 12.8), and 0.005 is less
# than a step of 8 bits. So spread, 30 calls of unipc keep the contrast of brightness, and of
# Gaussian texture down to a deviation of 0.02, to 2 % (rflow; evenly spread times keep half of it).
HIGH, LOW = 80.0, 0.005
RHO = 7.0  # how much denser small noise is sampled (Karras et al. 2022, appendix D.1)


class Gaussian(ABC):
    """A strategy given by alpha_t and sigma_t, by what is predicted, and by its times.

    What is predicted is a x_0 + b noise; of that the network is asked only what the best linear
    guess from x_t leaves to say, and sees and owes unit variance at any time. This is the
    preconditioning of Karras et al. 2022 (table 1, appendix B.6) for any alpha, sigma, a and b.
    """

    SAMPLERS = tuple(SAMPLERS)

    def __init__(self, *, data_sd: float, data_mean: float) -> None:
        self.data_sd, self.data_mean = data_sd, data_mean

    @abstractmethod
    def signal(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at `times` (N,), float64 (N,)."""

    @abstractmethod
    def parts(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """a and b (N,) of what is predicted: a x_0 + b noise."""

    @abstractmethod
    def line(self, count: int) -> Tensor:
        """Times (at most `count`,) to call the network at, from pure noise on."""

    def noisiness(self, times: Tensor) -> Tensor:
        """Share of noise sigma / (alpha + sigma), (N,): the time of a flow as noisy as this."""
        alpha, sigma = self.signal(times)
        return (sigma / (alpha + sigma)).float()

    def corrupt(self, images: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy images at `times` (N,) and what should be predicted, both like `images`."""
        alpha, sigma = self.signal(times)
        a, b = self.parts(alpha, sigma)
        alpha, sigma, a, b = (_over(each, images) for each in (alpha, sigma, a, b))
        return alpha * images + sigma * noise, a * images + b * noise

    def predict(self, network: Callable[[Tensor], Tensor], noisy: Tensor, times: Tensor) -> Tensor:
        """The best linear guess of what is predicted, and what `network` says beyond it."""
        alpha, sigma = self.signal(times)
        a, b = self.parts(alpha, sigma)
        data = self.data_sd**2
        variance = alpha**2 * data + sigma**2  # of x_t
        skip = _over((a * alpha * data + b * sigma) / variance, noisy)  # covariance over variance
        left = _over((a * sigma - b * alpha).abs() * self.data_sd * variance.rsqrt(), noisy)
        unit = _over(variance.rsqrt(), noisy)
        alpha, a = _over(alpha, noisy), _over(a, noisy)
        centered = noisy - alpha * self.data_mean
        guess = a * self.data_mean + skip * centered
        return guess + left * network(unit * centered).float()

    def denoised(self, output: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """The x_0 for which x_t = `noisy` and a x_0 + b noise = `output`."""
        alpha, sigma = self.signal(times)
        a, b = self.parts(alpha, sigma)
        both = b * alpha - a * sigma
        return _over(b / both, noisy) * noisy - _over(sigma / both, noisy) * output

    def integrate(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        noise: Tensor,
        *,
        sampler: str,
        steps: int,
        generators: Sequence[Generator],
    ) -> Tensor:
        """Images from unit `noise` (N, C, H, W), in at most `steps` calls of `denoise`.

        They start as x_t of an image that is the data's mean everywhere.
        """
        path = self.path(places(sampler, steps))
        times = path.times.to(noise.device)

        def clean(noisy: Tensor, place: int) -> Tensor:
            return denoise(noisy, times[place].expand(len(noisy)))

        start = path.alpha[0] * self.data_mean + path.sigma[0] * noise
        return SAMPLERS[sampler](clean, start, path, generators)

    def path(self, count: int) -> Path:
        """At most `count` places from pure noise on, and the image behind them."""
        times = self.line(count)
        alpha, sigma = self.signal(times)
        return Path(times, (*alpha.tolist(), 1.0), (*sigma.tolist(), 0.0))


def spread(count: int, high: float, low: float) -> Tensor:
    """`count` values from `high` to `low`, even in their RHO-th root (Karras et al. 2022, 5)."""
    import torch

    first, last = high ** (1 / RHO), low ** (1 / RHO)
    share = torch.linspace(0, 1, count, dtype=torch.float64)
    values: Tensor = (first + share * (last - first)) ** RHO
    return values


def shift(image_size: int) -> float:
    """Factor on sigma / alpha for images of `image_size` px a side, 1 up to 64 px.

    Neighbours in a larger image are alike, and their mean hides less of it under the same noise:
    log SNR falls by 2 log(size / 64) (Hoogeboom et al. 2023, eq. 3).
    """
    return max(1.0, image_size / BASE_SIZE)


def _over(values: Any, like: Tensor) -> Tensor:
    """`values` (N,) as factors (N, 1, ...) of `like`."""
    made: Tensor = values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
    return made
