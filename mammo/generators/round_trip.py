"""What an autoencoder does to real images: how near they come back, and whether spots survive.

Calcifications are bright spots of a few pixels, and the first thing that small latents lose: no
diffusion of latents can draw what its autoencoder cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mammo.generators.artist import call_size
from mammo.generators.autoencoders import Autoencoder

WIDTH = 5  # pixels: what is narrower, and brighter than its surroundings, is a spot
CONTRAST = 0.05  # least contrast of a spot, in the range of values: above film grain
MOST = 20  # strongest spots of an image that are followed
PLANTED = 0.2  # contrast of planted spots, in the range of values
SIGMA = 1.0  # pixels, of a planted spot: it is 2.4 px wide at half its height
APART = 16  # pixels between planted spots
LOSS = 0.2  # share of a spot's contrast that may be lost without a warning


@dataclass(frozen=True)
class RoundTrip:
    """Images (N, C, H, W) in [0, 1] before and after, and means over them.

    `spots` is the share of the contrast of the images' own bright spots that is left, `planted`
    that of spots of known contrast; nan where there are none.
    """

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    psnr: float  # dB
    ssim: float
    spots: float
    planted: float

    def metrics(self) -> dict[str, float]:
        """Under the names of a run, without what could not be measured."""
        found = {
            "autoencoder/psnr": self.psnr,
            "autoencoder/ssim": self.ssim,
            "autoencoder/spots": self.spots,
            "autoencoder/planted_spots": self.planted,
        }
        return {name: value for name, value in found.items() if np.isfinite(value)}

    def warning(self) -> str:
        """What to warn of; empty where spots survive."""
        kept = [each for each in (self.spots, self.planted) if np.isfinite(each)]
        if not kept or min(kept) >= 1 - LOSS:
            return ""
        return (
            f"the autoencoder keeps {min(kept):.0%} of the contrast of calcification-like spots, "
            f"less than {1 - LOSS:.0%}: what is trained on its latents cannot draw them; use "
            "larger images, an autoencoder with larger latents, or diffusion of pixels"
        )


def round_trip(network: Autoencoder, images: NDArray[Any], device: torch.device) -> RoundTrip:
    """Send `images` (N, C, H, W) in [0, 1] through the latents and back, on `device`."""
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim_of

    before = torch.from_numpy(np.asarray(images, np.float32))
    network.to(device)
    after = _restored(network, before, device)
    with_spots, places = plant(before)
    answer = _restored(network, with_spots, device) - after
    error = (after.clamp(0, 1) - before).square().flatten(1).mean(1)
    ssim = ssim_of(after.clamp(0, 1), before, data_range=1.0)
    return RoundTrip(
        before.numpy(),
        after.clamp(0, 1).numpy(),
        psnr=float(-10 * error.clamp(min=1e-10).log10().mean()),
        ssim=float(ssim),
        spots=contrast_kept(before, after),
        planted=float(answer[places].mean() / PLANTED) if places.any() else float("nan"),
    )


def contrast_kept(before: Tensor, after: Tensor) -> float:
    """Share of the contrast of the bright spots of `before` (N, C, H, W) that `after` has there.

    A spot is a peak of the white top-hat of at least `CONTRAST`; nan where there is none.
    """
    hat, left = top_hat(before), top_hat(after)
    peak = (hat >= CONTRAST) & (hat == functional.max_pool2d(hat, WIDTH, 1, WIDTH // 2))
    strength = torch.where(peak, hat, 0.0).flatten(1)
    values, places = strength.topk(min(MOST, strength.shape[1]), dim=1)
    found = values > 0
    if not found.any():
        return float("nan")
    there = left.flatten(1).gather(1, places)
    return float(there[found].sum() / values[found].sum())


def top_hat(images: Tensor) -> Tensor:
    """`images` (N, C, H, W) less their opening with a square: what is bright and narrow is left."""
    eroded = -functional.max_pool2d(-images, WIDTH, 1, WIDTH // 2)
    return images - functional.max_pool2d(eroded, WIDTH, 1, WIDTH // 2)


def plant(images: Tensor) -> tuple[Tensor, Tensor]:
    """`images` (N, C, H, W) with Gaussian spots on a grid, and where their peaks are (bool).

    They stand where something is shown, and where there is room for their contrast.
    """
    height, width = images.shape[2:]
    peaks = torch.zeros(1, 1, height, width)
    peaks[:, :, APART // 2 :: APART, APART // 2 :: APART] = 1
    room = (images > CONTRAST) & (images < 1 - PLANTED)
    places = (peaks * room).bool()
    reach = torch.arange(-3, 4).float()
    line = torch.exp(-reach.square() / (2 * SIGMA**2))
    spot = (line[:, None] * line[None, :])[None, None]
    count, channels = images.shape[:2]
    flat = places.float().reshape(count * channels, 1, height, width)
    spots = functional.conv2d(flat, spot, padding=3).reshape(images.shape)
    return (images + PLANTED * spots).clamp(max=1), places


@torch.inference_mode()
def _restored(network: Autoencoder, images: Tensor, device: torch.device) -> Tensor:
    """What comes back of `images`, from the mean latents, unclipped, on the CPU."""
    shape = (images.shape[1], images.shape[2], images.shape[3])
    parts = torch.split(images, call_size(shape, device))
    return torch.cat([network.decode(network.encode(each.to(device))[0]).cpu() for each in parts])
