"""What a family fits: a LightningModule that can hand out its weights and draw with them."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from mammo.generators.artist import Artist

GOLDEN = (math.sqrt(5) - 1) / 2


class Learner(Protocol):
    """A LightningModule with these two beside Lightning's own methods.

    Batches have `image` (B, C, H, W) in [0, 1], `label` (B,), `labels` (B, K) ids of the
    conditions, `row` (B,), and `mask` (B, 1, H, W), 0 or 1, where the mode needs it. All that a
    training step draws is a function of (seed, optimizer step, row): see `draws`.
    """

    def weights(self) -> dict[str, Tensor]:
        """What is saved: all that `artist` of the family needs beside the plan."""

    def artist(self) -> Artist:
        """Draws with the weights as they are now."""


def spread(rows: Tensor) -> Tensor:
    """A number (N,) in [0, 1) for each of `rows` (N,), the same in every epoch.

    Multiples of the golden ratio, modulo 1, fill the interval evenly however many there are.
    """
    places = [(row + 1) * GOLDEN % 1 for row in rows.tolist()]
    return torch.tensor(places, device=rows.device)


def weight(images: Tensor) -> float:
    """How much the mean over `images` (N, ...) counts among those of other batches and processes.

    A float: Lightning averages these over processes as they are, and would cut 1.5 down to 1.
    """
    return float(len(images))


def trainable(module: torch.nn.Module) -> list[Any]:
    """Parameters of `module` that are to be trained."""
    return [each for each in module.parameters() if each.requires_grad]
