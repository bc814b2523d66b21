"""Random changes to a batch of training images, drawn from torch's generator on the CPU."""

import math
from typing import TYPE_CHECKING

from mammo.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

AUGMENTS = Registry("augment")


@AUGMENTS.register("none")
def unchanged(images: "Tensor") -> "Tensor":
    """The images as they are."""
    return images


@AUGMENTS.register("basic")
def basic(images: "Tensor") -> "Tensor":
    """Small turns, shifts, zooms and changes of brightness of `images` (B, C, H, W) in [0, 1].

    No mirroring: mammograms lie with the chest wall at the left edge.
    """
    moved = move(images, turn_degrees=10, shift=0.05, zoom=0.1)
    return tone(moved, contrast=0.1, brightness=0.05, gamma=0.1)


@AUGMENTS.register("flip")
def flip(images: "Tensor") -> "Tensor":
    """`basic` after mirroring every second image left to right, for ultrasound."""
    return basic(mirror(images))


@AUGMENTS.register("strong")
def strong(images: "Tensor") -> "Tensor":
    """Twice the changes of `basic` and more, with one rectangle of up to a third blanked."""
    moved = move(images, turn_degrees=20, shift=0.1, zoom=0.2)
    return blank(tone(moved, contrast=0.25, brightness=0.1, gamma=0.25), side=1 / 3)


@AUGMENTS.register("strong_flip")
def strong_flip(images: "Tensor") -> "Tensor":
    """`strong` after mirroring every second image left to right, for ultrasound."""
    return strong(mirror(images))


def move(images: "Tensor", *, turn_degrees: float, shift: float, zoom: float) -> "Tensor":
    """Turn, shift (share of the side) and zoom each image by its own amount; outside is 0."""
    import torch
    from torch.nn import functional

    height, width = images.shape[2:]
    turn = _between(len(images), math.radians(turn_degrees))
    scale = 1 + _between(len(images), zoom)
    cos, sin = turn.cos() * scale, turn.sin() * scale
    # the grid runs over [-1, 1] on both sides, so a turn needs the aspect ratio
    rows = [
        torch.stack([cos, -sin * height / width, _between(len(images), 2 * shift)], dim=1),
        torch.stack([sin * width / height, cos, _between(len(images), 2 * shift)], dim=1),
    ]
    matrices = torch.stack(rows, dim=1).to(images)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def tone(images: "Tensor", *, contrast: float, brightness: float, gamma: float) -> "Tensor":
    """Change contrast, brightness and gamma of each image by its own amount; air (0) stays 0."""
    count = len(images)
    power = (1 + _between(count, gamma))[:, None, None, None].to(images)
    gain = (1 + _between(count, contrast))[:, None, None, None].to(images)
    offset = _between(count, brightness)[:, None, None, None].to(images)
    toned = (images.clamp(0, 1) ** power * gain + offset).clamp(0, 1)
    return toned * (images > 0)


def mirror(images: "Tensor") -> "Tensor":
    """Mirror each image left to right with probability one half."""
    import torch

    turned = torch.rand(len(images))[:, None, None, None].to(images.device) < 0.5
    return torch.where(turned, images.flip(3), images)


def blank(images: "Tensor", *, side: float) -> "Tensor":
    """Set one rectangle of each image to 0, its sides up to `side` of the image's."""
    import torch

    height, width = images.shape[2:]
    inside = []
    for length in (height, width):
        size = torch.rand(len(images), 1) * side * length
        start = torch.rand(len(images), 1) * (length - size)
        place = torch.arange(length)[None]
        inside.append((place >= start) & (place < start + size))
    hole = (inside[0][:, :, None] & inside[1][:, None, :])[:, None].to(images.device)
    return images.masked_fill(hole, 0.0)


def _between(count: int, limit: float) -> "Tensor":
    """`count` numbers drawn evenly from [-limit, limit]."""
    import torch

    return (torch.rand(count) * 2 - 1) * limit
