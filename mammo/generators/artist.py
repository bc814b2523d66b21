"""Drawing: an image is a function of the trained weights, what is asked of it and its seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

PIXELS = 1 << 17  # of one call of the network
MOST = {"cpu": 8, "cuda": 64}  # images of one call


@dataclass(frozen=True)
class Asked:
    """What N images are asked to be; the tensors lie on the CPU.

    `labels` (N, K) ids of `Conditions`, `control` (N, c, H, W) in [-1, 1] or None, `seeds` N
    numbers. `guidance` 1 follows what is told as trained, more exaggerates it, 0 ignores it; it
    acts while the share of noise lies in `interval` (1 outside), and `rescale` (0 to 1) takes back
    what contrast it adds. `sampler` and `steps` (calls of the network) are of diffusion.
    """

    labels: Tensor
    seeds: Sequence[int]
    control: Tensor | None = None
    guidance: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0
    sampler: str = ""
    steps: int = 30

    def __len__(self) -> int:
        return len(self.seeds)

    def at(self, places: Sequence[int]) -> Asked:
        """The images at `places` alone, in that order."""
        chosen = list(places)
        control = None if self.control is None else self.control[chosen]
        seeds = [self.seeds[place] for place in chosen]
        return replace(self, labels=self.labels[chosen], seeds=seeds, control=control)

    def generators(self) -> list[torch.Generator]:
        """A generator on the CPU from each seed."""
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def noise(self, shape: Sequence[int], drawing: Sequence[torch.Generator]) -> Tensor:
        """Unit normal noise (N, *shape), each image's from its own generator."""
        size = tuple(shape)
        return torch.stack([torch.randn(size, generator=each) for each in drawing])


class Artist(Protocol):
    """What draws with trained weights; a family makes one."""

    shape: tuple[int, int, int]  # channels, height and width of what it draws
    samplers: tuple[str, ...]  # of noise, the default first; empty where one call draws

    def draw(self, asked: Asked) -> Tensor:
        """Images (N, *shape) float32 in [0, 1] on the CPU; an image depends on its own asking."""


def in_calls(asked: Asked, width: int, draw: Callable[[Asked], Tensor]) -> Tensor:
    """`draw` in groups of exactly `width` images, the last padded with copies; (N, ...) on the CPU.

    Every call then runs the same kernels, and neither the size of a batch nor the place of an
    image in it changes a bit. Between kinds of device the last bits differ.
    """
    pieces = []
    for start in range(0, len(asked), width):
        places = list(range(start, min(start + width, len(asked))))
        padded = places + [places[-1]] * (width - len(places))
        pieces.append(draw(asked.at(padded))[: len(places)].float().cpu())
    return torch.cat(pieces)


def in_pieces(made: Tensor, most: int, finish: Callable[[Tensor], Tensor]) -> Tensor:
    """`finish` of `made` (N, ...) in equal pieces of at most `most`, where N is a call's width.

    Pixels need more memory than the latents that they are made of.
    """
    return torch.cat([finish(piece) for piece in torch.split(made, math.gcd(len(made), most))])


def call_size(shape: tuple[int, int, int], device: torch.device) -> int:
    """Images of one call of a network that makes `shape`: by size and kind of device alone."""
    return max(1, min(MOST.get(device.type, 8), PIXELS // (shape[1] * shape[2])))
