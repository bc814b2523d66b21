"""The networks of the generative adversarial network: what makes images and what judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from mammo.generators.one_call import beside, one_hot, planes, smallest

GROUP = 8  # channels of a group of the normalisation: one alone would lose its level
LEAK = 0.2  # of the rectifiers


class Maker(nn.Module):
    """Images (N, C, H, W) in [-1, 1] from latents (N, latent_dim), labels (N, K) and a control.

    Residual blocks, each twice as large as the one before; labels set the scale and shift of
    every normalisation. That is done by groups of channels, never over a batch: an image would
    depend on its neighbours.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.latent_dim = int(description["latent_dim"])
        self._sizes = list(description["labels"])
        self._smallest = smallest(description)
        told, control = sum(self._sizes), int(description["control"])
        channels, height, width = self._smallest
        self.first = nn.Linear(self.latent_dim + told, channels * height * width)
        self.levels = nn.ModuleList()
        for out in _upwards(description["channels"]):
            self.levels.append(GrowingBlock(channels, control, out, told))
            channels = out
        self.norm = ToldNorm(channels, told)
        self.last = nn.Conv2d(channels, description["made"][0], 3, padding=1)

    def forward(self, latent: Tensor, labels: Tensor, control: Tensor | None) -> Tensor:
        told = one_hot(labels, self._sizes)
        x = self.first(torch.cat([latent, told], dim=1)).unflatten(1, self._smallest)
        for level in self.levels:
            x = level(x, told, control)
        image: Tensor = torch.tanh(self.last(functional.silu(self.norm(x, told))))
        return image


class GrowingBlock(nn.Module):
    """A residual block that doubles height and width and sees the control beside."""

    def __init__(self, channels: int, control: int, out: int, told: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([ToldNorm(channels, told), ToldNorm(out, told)])
        self.convs = nn.ModuleList(
            [nn.Conv2d(channels + control, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)]
        )
        self.skip = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, told: Tensor, control: Tensor | None) -> Tensor:
        large = functional.interpolate(functional.silu(self.norms[0](x, told)), scale_factor=2)
        inner = self.convs[0](beside(large, control))
        inner = self.convs[1](functional.silu(self.norms[1](inner, told)))
        out: Tensor = inner + functional.interpolate(self.skip(x), scale_factor=2)
        return out


class ToldNorm(nn.Module):
    """Normalises groups of channels; what is told (N, told) adds to their scale and shift."""

    def __init__(self, channels: int, told: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(channels // GROUP, channels)
        self.told = nn.Linear(told, 2 * channels, bias=False) if told else None

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        normal: Tensor = self.norm(x)
        if self.told is None:
            return normal
        scale, shift = self.told(told)[:, :, None, None].chunk(2, dim=1)
        shown: Tensor = normal * (1 + scale) + shift
        return shown


class Critic(nn.Module):
    """How real images (N, C, H, W) look for their labels and control, (N,): no bounds, no unit.

    A projection critic (Miyato and Koyama 2018, eq. 3): a linear function of the features, plus
    their product with an embedding of the labels. Every layer has spectral norm 1 (Miyato et al.
    2018), as its weights read as a matrix of output channels by the rest.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        self._sizes = list(description["labels"])
        seen = description["made"][0] + description["control"]
        self.levels = nn.ModuleList()
        for out in description["channels"]:
            self.levels.append(ShrinkingBlock(seen, out))
            seen = out
        self.last = spectral_norm(nn.Linear(seen, 1))
        told = sum(self._sizes)
        self.told = spectral_norm(nn.Linear(told, seen, bias=False)) if told else None

    def forward(self, image: Tensor, labels: Tensor, control: Tensor | None) -> Tensor:
        x = beside(image, control)
        for level in self.levels:
            x = level(x)
        features = functional.leaky_relu(x, LEAK).sum((2, 3))
        score: Tensor = self.last(features)[:, 0]
        if self.told is not None:
            score = score + (self.told(one_hot(labels, self._sizes)) * features).sum(1)
        return score


class ShrinkingBlock(nn.Module):
    """A residual block that halves height and width, of layers with spectral norm 1."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            spectral_norm(nn.Conv2d(channels, out, 3, padding=1)),
            nn.LeakyReLU(LEAK),
            spectral_norm(nn.Conv2d(out, out, 3, padding=1)),
        )
        self.skip = spectral_norm(nn.Conv2d(channels, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = functional.avg_pool2d(
            self.convs(functional.leaky_relu(x, LEAK)) + self.skip(x), 2
        )
        return out


class MinimalMaker(nn.Module):
    """As `Maker`, of a transposed convolution a level, the labels beside the latents."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.latent_dim = int(description["latent_dim"])
        self._sizes = list(description["labels"])
        self._smallest = smallest(description)
        control = int(description["control"])
        channels, height, width = self._smallest
        self.first = nn.Linear(self.latent_dim + sum(self._sizes), channels * height * width)
        self.levels = nn.ModuleList()
        for out in [*_upwards(description["channels"])[:-1], description["made"][0]]:
            self.levels.append(nn.ConvTranspose2d(channels + control, out, 4, 2, padding=1))
            channels = out

    def forward(self, latent: Tensor, labels: Tensor, control: Tensor | None) -> Tensor:
        told = one_hot(labels, self._sizes)
        x = self.first(torch.cat([latent, told], dim=1)).unflatten(1, self._smallest)
        for level in self.levels:
            x = level(beside(functional.relu(x), control))
        return torch.tanh(x)


class MinimalCritic(nn.Module):
    """As `Critic`, of a convolution a level, the labels as planes beside the image."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        self._sizes = list(description["labels"])
        channels, height, width = smallest(description)
        seen = description["made"][0] + description["control"] + sum(self._sizes)
        levels: list[nn.Module] = []
        for out in description["channels"]:
            levels += [nn.Conv2d(seen, out, 4, stride=2, padding=1), nn.LeakyReLU(LEAK)]
            seen = out
        self.levels = nn.Sequential(*levels, nn.Flatten())
        self.last = nn.Linear(channels * height * width, 1)

    def forward(self, image: Tensor, labels: Tensor, control: Tensor | None) -> Tensor:
        told = planes(one_hot(labels, self._sizes), image)
        score: Tensor = self.last(self.levels(beside(torch.cat([image, told], dim=1), control)))
        return score[:, 0]


# Maker and critic by the setting `network`.
NETWORKS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "unet": (Maker, Critic),
    "minimal": (MinimalMaker, MinimalCritic),
}


def build_maker(description: Mapping[str, Any], *, seed: int) -> Any:
    """What makes images, with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[description["network"]][0](description)


def build_critic(description: Mapping[str, Any], *, seed: int) -> Any:
    """What judges them, with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[description["network"]][1](description)


def _upwards(channels: Sequence[int]) -> list[int]:
    """Channels after each level, from the deepest to the image's own size."""
    return [channels[0], *channels[:-1]][::-1]
