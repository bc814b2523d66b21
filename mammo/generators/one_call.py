"""Drawing in one call of a network: unit normal numbers and what is told become an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mammo.errors import ConfigError
from mammo.generators.artist import Asked, call_size, in_calls
from mammo.generators.canvas import Canvas
from mammo.generators.unet import parse_channels


class OneCallArtist:
    """Draws with a network that is called as network(latent, labels, control).

    `latent` (N, network.latent_dim) are the unit normal numbers of the seeds.
    """

    samplers: tuple[str, ...] = ()

    def __init__(self, network: Any, canvas: Canvas) -> None:
        self.network, self.canvas = network, canvas
        self.shape = canvas.shape

    @torch.inference_mode()
    def draw(self, asked: Asked) -> Tensor:
        """Images (N, C, H, W) float32 in [0, 1] on the CPU."""
        device = next(self.network.parameters()).device
        was_training = self.network.training
        self.network.eval()
        width = call_size(self.shape, device)
        drawn = in_calls(asked, width, lambda some: self._call(some, device))
        self.network.train(was_training)
        return drawn

    def _call(self, asked: Asked, device: torch.device) -> Tensor:
        latent = asked.noise((self.network.latent_dim,), asked.generators()).to(device)
        control = self.canvas.fit(asked.control, device)
        return self.canvas.finish(self.network(latent, asked.labels.to(device), control))


def one_hot(labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """Labels (N, K), ids below `sizes`, as (N, sum of sizes): one 1 a label, none if not told."""
    parts = [
        functional.one_hot(labels[:, place], size + 1)[:, :size] for place, size in enumerate(sizes)
    ]
    return torch.cat(parts, dim=1).float() if parts else torch.zeros(len(labels), 0).to(labels)


def planes(told: Tensor, like: Tensor) -> Tensor:
    """Numbers (N, S) as S planes of the height and width of `like`."""
    return told[:, :, None, None].expand(-1, -1, *like.shape[2:])


class Grow(nn.Module):
    """Twice the height and width, beside the control, through one convolution."""

    def __init__(self, channels: int, control: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels + control, out, 3, padding=1)

    def forward(self, x: Tensor, control: Tensor | None) -> Tensor:
        large = functional.interpolate(x, scale_factor=2, mode="nearest")
        seen: Tensor = self.conv(beside(large, control))
        return seen


def beside(x: Tensor, control: Tensor | None) -> Tensor:
    """`x` (N, C, h, w) with a `control` (N, c, H, W) averaged to its size as more channels."""
    if control is None:
        return x
    size = (x.shape[2], x.shape[3])
    return torch.cat([x, functional.adaptive_avg_pool2d(control, size)], dim=1)


def describe(
    *,
    made: Sequence[int],
    control: int,
    labels: Sequence[int],
    channels: str,
    latent_dim: int,
) -> dict[str, Any]:
    """Check a network's settings against what it makes; returns what builds it, as JSON.

    `made` is (C, H, W), `control` channels, `labels` the sizes of `Conditions`, `channels` one
    number a level; each level halves height and width.
    """
    levels = parse_channels(channels)
    height, width = made[1:]
    factor = 2 ** len(levels)
    if height % factor or width % factor:
        raise ConfigError(
            f"images of {height} x {width} px do not divide by {factor}, as channels={channels} "
            "need, half the size a level; use fewer levels or resize"
        )
    return {
        "made": list(made),
        "control": control,
        "labels": list(labels),
        "channels": levels,
        "latent_dim": latent_dim,
    }


def smallest(description: Mapping[str, Any]) -> tuple[int, int, int]:
    """Channels, height and width of the deepest level."""
    levels = description["channels"]
    _, height, width = description["made"]
    return levels[-1], height // 2 ** len(levels), width // 2 ** len(levels)
