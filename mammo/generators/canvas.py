"""What is diffused: pixels, or the latents of an autoencoder; between a batch and the network."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mammo.generators.modes import Mode


class Canvas(Protocol):
    """Turns batches into what is diffused, and what is diffused into images."""

    shape: tuple[int, int, int]  # channels, height, width of a finished image
    made: tuple[int, int, int]  # of what is diffused

    def target(self, batch: dict[str, Tensor]) -> Tensor:
        """What is to be made of a batch, (B, *made)."""

    def control(self, batch: dict[str, Tensor]) -> Tensor | None:
        """What it is made from, (B, c, height and width of made) in [-1, 1], or None."""

    def fit(self, control: Tensor | None, device: torch.device) -> Tensor | None:
        """An asked control (N, c, H, W), of the size that the network takes, on `device`."""

    def clip(self, clean: Tensor) -> Tensor:
        """The nearest possible to an estimate of what is made."""

    def pixels(self, clean: Tensor) -> Tensor:
        """What is made as images in [0, 1], unclipped and differentiable: for losses."""

    def finish(self, made: Tensor) -> Tensor:
        """Finished images (N, *shape) in [0, 1]."""


class Pixels:
    """Images themselves, of `shape` (C, H, W) as the mode makes them."""

    def __init__(self, mode: Mode, shape: tuple[int, int, int]) -> None:
        self._mode = mode
        self.shape = self.made = shape

    def target(self, batch: dict[str, Tensor]) -> Tensor:
        return self._mode.target(batch)

    def control(self, batch: dict[str, Tensor]) -> Tensor | None:
        return self._mode.control(batch)

    def fit(self, control: Tensor | None, device: torch.device) -> Tensor | None:
        return None if control is None else control.to(device)

    def clip(self, clean: Tensor) -> Tensor:
        return clean.clamp(-1, 1)

    def pixels(self, clean: Tensor) -> Tensor:
        return (clean + 1) / 2

    def finish(self, made: Tensor) -> Tensor:
        return ((made.float() + 1) / 2).clamp(0, 1)
