"""TAEF2, a tiny pretrained autoencoder: RGB images, and latents of 32 channels at 1/8 the size.

Its weights are public (github.com/madebyollin/taesd, MIT); they are two state dicts, whose keys and
shapes this module has. Images are in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 64  # channels of every layer
LATENT = 32  # channels
FILES = ("taef2_encoder.pth", "taef2_decoder.pth")
GROUPS = 4  # of the normalisation in the deepest blocks
BOUND = 3.0  # latents are bent into -3 to 3 before they are decoded


class Taef2(nn.Module):
    """Takes images (N, 3, H, W) in [0, 1] to latents (N, 32, H / 8, W / 8) and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, padding=1),
            Block(),
            *_level(nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False)),
            *_level(nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False)),
            *_level(nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False), pooled=True),
            nn.Conv2d(WIDTH, LATENT, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            Bend(),
            nn.Conv2d(LATENT, WIDTH, 3, padding=1),
            *_level(nn.ReLU(), pooled=True),
            nn.Upsample(scale_factor=2),
            *_level(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)),
            nn.Upsample(scale_factor=2),
            *_level(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            Block(),
            nn.Conv2d(WIDTH, 3, 3, padding=1),
        )

    def encode(self, images: Tensor) -> Tensor:
        """Latents (N, 32, H / 8, W / 8) of `images` (N, 3, H, W)."""
        latents: Tensor = self.encoder(images)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Images (N, 3, H, W), about [0, 1], of `latents`."""
        images: Tensor = self.decoder(latents)
        return images


class Block(nn.Module):
    """Three convolutions beside the identity; `pooled` with a wide normalised look before them."""

    def __init__(self, *, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        )
        if pooled:
            self.pool: nn.Sequential | None = nn.Sequential(
                nn.Conv2d(WIDTH, 4 * WIDTH, 1, bias=False),
                nn.GroupNorm(GROUPS, 4 * WIDTH),
                nn.ReLU(),
                nn.Conv2d(4 * WIDTH, WIDTH, 1, bias=False),
            )
        else:
            self.pool = None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Bend(nn.Module):
    """A soft limit of latents: 3 tanh(x / 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / BOUND) * BOUND


def _level(first: nn.Module, *, pooled: bool = False) -> list[nn.Module]:
    return [first, *(Block(pooled=pooled) for _ in range(3))]
