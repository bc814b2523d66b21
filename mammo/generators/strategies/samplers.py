"""Samplers: plain functions that take noise to an image along the path of any strategy.

All work on x_t = alpha x_0 + sigma noise with an estimate of x_0, so that one of them serves every
strategy. Each is called as sampler(clean, images, path, generators), where clean(images, place)
asks the network for x_0 at a place of the path, and gives back what stands at the end of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

    Clean = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Path:
    """Places between noise and image: one a call of the network, and the image as the last.

    `times` (K,) are the strategy's; `alpha` and `sigma` are K + 1 numbers and end with 1 and 0.
    """

    times: Tensor
    alpha: Sequence[float]
    sigma: Sequence[float]

    def __len__(self) -> int:
        return len(self.times)

    def move(self, images: Tensor, clean: Tensor, place: int) -> Tensor:
        """From `place` to the next, exact if `clean` were so all the way (Song et al. 2021, 12)."""
        kept = self.sigma[place + 1] / self.sigma[place]
        return kept * images + (self.alpha[place + 1] - kept * self.alpha[place]) * clean

    def stride(self, place: int) -> float:
        """log(alpha / sigma) gained from `place` to the next; infinite from noise or to an image.

        That is h of the exponential integrators (Lu et al. 2022).
        """
        if not self.alpha[place] or not self.sigma[place + 1]:
            return math.inf
        before, after = (self.alpha[at] / self.sigma[at] for at in (place, place + 1))
        return math.log(after / before)


def straight(
    clean: Clean, images: Tensor, path: Path, generators: Sequence[Generator] = ()
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12 without noise), which is Euler's method (their eq. 14)."""
    for place in range(len(path)):
        images = path.move(images, clean(images, place), place)
    return images


def heun(clean: Clean, images: Tensor, path: Path, generators: Sequence[Generator] = ()) -> Tensor:
    """Heun's method (Karras et al. 2022, algorithm 1), two calls a place and one at the last.

    Steps are taken where the path of an image and its noise is a straight line: as it is where
    alpha stays 1 (edm), else of x / (alpha + sigma), which is the line of rflow and has a slope
    even where no signal is left.
    """
    flat = path.alpha[0] == 1
    size = [
        1.0 if flat else alpha + sigma for alpha, sigma in zip(path.alpha, path.sigma, strict=True)
    ]
    line = [sigma / scale for sigma, scale in zip(path.sigma, size, strict=True)]
    for place in range(len(path) - 1):
        now, after = place, place + 1
        seen = clean(images, now)
        slope = (images / size[now] - seen) / line[now]
        guess = path.move(images, seen, now)
        slope_after = (guess / size[after] - clean(guess, after)) / line[after]
        stride = line[after] - line[now]
        images = size[after] * (images / size[now] + stride * (slope + slope_after) / 2)
    last = len(path) - 1
    return path.move(images, clean(images, last), last)


def dpmpp(clean: Clean, images: Tensor, path: Path, generators: Sequence[Generator] = ()) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), of first order at the last place."""
    seen: list[Tensor] = []
    for place in range(len(path)):
        seen.append(clean(images, place))
        images = path.move(images, _ahead(seen, path, place), place)
    return images


def unipc(clean: Clean, images: Tensor, path: Path, generators: Sequence[Generator] = ()) -> Tensor:
    """UniPC of order 2 with B(h) = e^h - 1 (Zhao et al. 2023, algorithms 1 and 2).

    The predictor of order 2 is that of dpmpp. What the network then sees at a place corrects the
    step that led there, at no further call.
    """
    seen: list[Tensor] = []
    start = images
    for place in range(len(path)):
        seen.append(clean(images, place))
        if place:
            images = path.move(start, _behind(seen, path, place - 1), place - 1)
        start = images
        images = path.move(start, _ahead(seen, path, place), place)
    return images


def ancestral(
    clean: Clean, images: Tensor, path: Path, generators: Sequence[Generator] = ()
) -> Tensor:
    """The posterior q(x_after | x_now, x_0), drawn (Ho et al. 2020, eq. 6 and 7).

    For any alpha and sigma: Kingma et al. 2021, appendix A.2. The reference, in 1000 steps.
    """
    for place in range(len(path)):
        images = _drawn(images, clean(images, place), path, place, generators)
    return images


def dpmpp_sde(
    clean: Clean, images: Tensor, path: Path, generators: Sequence[Generator] = ()
) -> Tensor:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, appendix B): `ancestral` with the x_0 of `dpmpp`."""
    seen: list[Tensor] = []
    for place in range(len(path)):
        seen.append(clean(images, place))
        images = _drawn(images, _ahead(seen, path, place), path, place, generators)
    return images


# The default first. ddim and euler are two names for one method, that of the literature of
# diffusion and that of flows.
SAMPLERS = {
    "unipc": unipc,
    "dpmpp": dpmpp,
    "heun": heun,
    "ddim": straight,
    "euler": straight,
    "dpmpp_sde": dpmpp_sde,
    "ddpm": ancestral,
}

# Calls from which on a sampler of two calls a place is not further off than Euler's method with as
# many: its few places lie so far apart that the second slope, seen from beyond the curve, adds
# contrast. With 20 calls a Gaussian texture's is off by 35 to 61 %, with 10 by more than 300 %.
FEWEST = {"heun": 40}


def places(sampler: str, calls: int) -> int:
    """Places of a path along which `sampler` makes at most `calls` calls: heun makes 2 K - 1."""
    return (calls + 1) // 2 if sampler == "heun" else calls


def _drawn(
    images: Tensor, clean: Tensor, path: Path, place: int, generators: Sequence[Generator]
) -> Tensor:
    """From `place` to the next, with the noise that the posterior given `clean` has there."""
    import torch

    alpha, after = path.alpha[place : place + 2]
    sigma, left = path.sigma[place : place + 2]
    fresh = sigma**2 - (alpha / after * left) ** 2  # variance added between the two
    images = alpha / after * left**2 / sigma**2 * images + after * fresh / sigma**2 * clean
    if left:
        noise = [torch.randn(images.shape[1:], generator=each) for each in generators]
        images = images + left * math.sqrt(fresh) / sigma * torch.stack(noise).to(images)
    return images


def _ahead(seen: Sequence[Tensor], path: Path, place: int) -> Tensor:
    """x_0 as it will have been on the way to the next place, on a line through the last two."""
    if place == 0 or place == len(path) - 1:
        return seen[place]
    ratio = path.stride(place - 1) / path.stride(place)  # infinite after pure noise
    return seen[place] + (seen[place] - seen[place - 1]) / (2 * ratio)


def _behind(seen: Sequence[Tensor], path: Path, place: int) -> Tensor:
    """x_0 as it was from `place` to the next, seen from its end (UniC)."""
    change = seen[place + 1] - seen[place]
    if place == 0:
        return seen[place] + change / 2
    stride = path.stride(place)
    ratio = path.stride(place - 1) / stride
    whole = math.expm1(-stride)
    first = 1 + whole / stride
    one = -first / whole
    two = 2 * (first / stride - 0.5) / whole
    old = (one - two) / (1 + ratio)
    return seen[place] + old * (seen[place] - seen[place - 1]) / ratio + (one - old) * change
