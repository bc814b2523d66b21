"""Random changes of training images, as system 0 makes them, drawn by seed, step and row.

An image and its mask move alike, and what comes in from outside is air. Validation images stay as
they are.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional

from mammo.data.dataset import Dataset
from mammo.generators import draws

log = logging.getLogger("mammo")
MIRRORED = 0.5  # share of the images
TURN_DEGREES, SHEAR, SHIFT, ZOOM = 15.0, 0.1, 0.05, 0.05  # largest, each way; SHIFT of the side
GAMMA, GAMMA_SHARE = 0.1, 0.2  # gamma from 0.9 to 1.1, for a fifth of the images
DRAWN = 8  # numbers of an image
ONE_SIDED = 0.9  # share of images that are brighter on the same side
LOOKED_AT = 256  # images, for their sides


@dataclass(frozen=True)
class Changes:
    """What is done to N images."""

    mirrored: Tensor  # (N,) bool: left to right
    matrices: Tensor | None  # (N, 2, 3) where a pixel comes from, in sides; None: nothing moves
    gamma: Tensor  # (N,) exponent of the values; 1 leaves them


def drawn(how: str, *, seed: int, step: int, rows: Tensor) -> Changes:
    """The changes `how` (flip, geometric, all) of `rows` (N,) in optimizer step `step`."""
    drawing = draws.generators(seed, "augment", step, rows=rows)
    uniform = torch.stack([torch.rand(DRAWN, generator=each) for each in drawing]).to(rows.device)
    mirror, contrast, *moves = uniform.T
    # one number says whether, and where within the range
    gamma = 1 + GAMMA * (2 * contrast / GAMMA_SHARE - 1)
    changed = (contrast < GAMMA_SHARE) & (how == "all")
    return Changes(
        mirror < MIRRORED,
        _matrices(*(2 * each - 1 for each in moves)) if how in ("geometric", "all") else None,
        torch.where(changed, gamma, 1.0),
    )


def warn_of_sides(data: Dataset, rows: np.ndarray[Any, Any]) -> None:
    """Warn where the images of `rows` all lie to one side: mirrored, half of them no longer do."""
    some = rows[np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).astype(int))]
    images = data.images(some)
    half = images.shape[-1] // 2
    left = images[..., :half].mean((1, 2, 3)) > images[..., -half:].mean((1, 2, 3))
    share, side = max((left.mean(), "left"), (1 - left.mean(), "right"))
    if share >= ONE_SIDED:
        log.warning(
            "augment mirrors images of which %.0f %% lie to the %s: about half of what is sampled "
            "will lie to the other side",
            100 * share,
            side,
        )


def augmented(batch: Mapping[str, Tensor], changes: Changes) -> dict[str, Tensor]:
    """`image` (N, C, H, W) in [0, 1] of `batch`, and `mask` where it has one, changed."""
    out = {"image": tone(move(batch["image"], changes), changes)}
    if "mask" in batch:
        out["mask"] = (move(batch["mask"], changes) >= 0.5).to(batch["mask"])
    return out


def move(images: Tensor, changes: Changes) -> Tensor:
    """`images` (N, C, H, W) mirrored, then turned, sheared, zoomed and shifted; outside is 0."""
    images = torch.where(changes.mirrored[:, None, None, None], images.flip(3), images)
    if changes.matrices is None:
        return images
    height, width = images.shape[2:]
    # the grid runs over [-1, 1] along both sides, so what crosses over needs the aspect ratio
    aspect = images.new_tensor([[1, height / width, 1], [width / height, 1, 1]])
    grid = functional.affine_grid(
        changes.matrices.to(images) * aspect, list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, align_corners=False)


def tone(images: Tensor, changes: Changes) -> Tensor:
    """`images` (N, C, H, W) in [0, 1] to the power of gamma; air and white stay."""
    power = changes.gamma[:, None, None, None].to(images)
    return torch.where(power == 1, images, images.clamp(0, 1) ** power)


class Augmentation(Callback):
    """Changes every training batch before any family sees it.

    What is drawn is a function of seed, optimizer step and row: the same in one process or many,
    and after a resume.
    """

    def __init__(self, how: str, *, seed: int) -> None:
        self._how, self._seed = how, seed

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        changes = drawn(self._how, seed=self._seed, step=trainer.global_step, rows=batch["row"])
        batch.update(augmented(batch, changes))  # the very dict that the step is given


def _matrices(
    turn: Tensor, shear_x: Tensor, shear_y: Tensor, shift_x: Tensor, shift_y: Tensor, zoom: Tensor
) -> Tensor:
    """Matrices (N, 2, 3) of moves (N,), each in [-1, 1] of its largest."""
    angle, one = turn * math.radians(TURN_DEGREES), torch.ones_like(turn)
    turned = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1)
    sheared = torch.stack([one, SHEAR * shear_x, SHEAR * shear_y, one], dim=1)
    linear = turned.view(-1, 2, 2) @ sheared.view(-1, 2, 2) / (1 + ZOOM * zoom)[:, None, None]
    shift = 2 * SHIFT * torch.stack([shift_x, shift_y], dim=1)  # the grid's side is 2
    return torch.cat([linear, shift[:, :, None]], dim=2)
