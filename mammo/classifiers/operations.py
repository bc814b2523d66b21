"""Operations on a batch of images, each image by its own amount, in one pass on their device.

Images are (B, C, H, W) in [0, 1] with air 0; amounts are (B,) on the same device.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

# What each amount is where nothing is done.
NEUTRAL = {
    "mirror_x": 0.0,  # 1 turns left to right
    "mirror_y": 0.0,  # 1 turns upside down
    "turn": 0.0,  # radians
    "zoom": 0.0,  # of the field of view: 0.1 shows a tenth more
    "shift_x": 0.0,  # of half a side, as are the others of a shift
    "shift_y": 0.0,
    "shear_x": 0.0,
    "shear_y": 0.0,
    "gamma": 1.0,  # exponent
    "contrast": 1.0,  # factor
    "brightness": 0.0,  # added
    "sharpness": 1.0,  # factor: 0 smooths, 2 sharpens
    "noise": 0.0,  # standard deviation
    "top": 0.0,  # a blanked rectangle in pixels, from top and left
    "left": 0.0,
    "height": 0.0,
    "width": 0.0,
}
_MOVES = ("turn", "zoom", "shift_x", "shift_y", "shear_x", "shear_y")
_TONES = ("gamma", "contrast", "brightness")


def change(images: Tensor, amounts: Mapping[str, Tensor]) -> Tensor:
    """`images` changed by `amounts`, of NEUTRAL's names; what none of them touches stays exact.

    In float32, autocast or not: in bf16 the coordinates of a 512-pixel side are a pixel apart.
    """
    with torch.autocast(images.device.type, enabled=False):
        return _changed(images, amounts)


def _changed(images: Tensor, amounts: Mapping[str, Tensor]) -> Tensor:
    full = {name: images.new_full((len(images),), value) for name, value in NEUTRAL.items()}
    if amounts:  # in one transfer
        moved = torch.stack([each.float() for each in amounts.values()]).to(images)
        full |= dict(zip(amounts, moved, strict=True))
    out = images
    if "mirror_x" in amounts or "mirror_y" in amounts:
        out = mirror(out, full["mirror_x"], full["mirror_y"])
    if any(name in amounts for name in _MOVES):
        out = move(out, **{name: full[name] for name in _MOVES})
    if any(name in amounts for name in _TONES):
        out = tone(out, **{name: full[name] for name in _TONES})
    if "sharpness" in amounts:
        out = sharpen(out, full["sharpness"])
    if "noise" in amounts:
        out = add_noise(out, full["noise"])
    if "height" in amounts:
        out = blank(out, **{name: full[name] for name in ("top", "left", "height", "width")})
    return out


def mirror(images: Tensor, mirror_x: Tensor, mirror_y: Tensor) -> Tensor:
    """Mirror the images of which an amount is not 0, left to right and upside down."""
    images = torch.where(_each(mirror_x) != 0, images.flip(3), images)
    return torch.where(_each(mirror_y) != 0, images.flip(2), images)


def move(
    images: Tensor,
    *,
    turn: Tensor,
    zoom: Tensor,
    shift_x: Tensor,
    shift_y: Tensor,
    shear_x: Tensor,
    shear_y: Tensor,
) -> Tensor:
    """Shear, turn, zoom and shift each image about its center; outside is 0."""
    height, width = images.shape[2:]
    scale = 1 + zoom
    cos, sin = turn.cos() * scale, turn.sin() * scale
    # the grid runs over [-1, 1] on both sides, so what crosses over needs the aspect ratio
    across = (cos * shear_x - sin) * height / width
    down = (sin + cos * shear_y) * width / height
    rows = [
        torch.stack([cos - sin * shear_y, across, shift_x], dim=1),
        torch.stack([down, sin * shear_x + cos, shift_y], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False)
    still = (turn == 0) & (zoom == 0) & (shift_x == 0) & (shift_y == 0)
    return torch.where(_each(still & (shear_x == 0) & (shear_y == 0)), images, moved)


def tone(images: Tensor, *, gamma: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    """Raise to the power gamma, scale and add; what is below 0 or above 1 is cut, air stays 0."""
    toned = images.clamp(0, 1) ** _each(gamma) * _each(contrast) + _each(brightness)
    return toned.clamp(0, 1) * (images > 0)


def sharpen(images: Tensor, factor: Tensor) -> Tensor:
    """factor images + (1 - factor) smoothed ones: 0 smooths, 1 leaves, 2 sharpens.

    Smoothed by the 3 x 3 kernel of Pillow and torchvision; the outermost pixels stay.
    """
    channels = images.shape[1]
    kernel = images.new_tensor([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    inner = functional.conv2d(images, kernel.expand(channels, 1, 3, 3), groups=channels)
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = inner
    mixed = (images + (1 - _each(factor)) * (smooth - images)).clamp(0, 1)
    return torch.where(_each(factor) == 1, images, mixed)


def add_noise(images: Tensor, sd: Tensor) -> Tensor:
    """Add normal noise from the generator of the images' device; air stays 0."""
    noisy = (images + _each(sd) * torch.randn_like(images)).clamp(0, 1) * (images > 0)
    return torch.where(_each(sd) == 0, images, noisy)


def blank(images: Tensor, *, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Set to 0 the pixels of a rectangle, whose first is the first at or after its edge."""
    return images.masked_fill(box(images, top=top, left=left, height=height, width=width), 0.0)


def box(images: Tensor, *, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Which pixels (B, 1, H, W) lie in each image's rectangle [top, top + height) x [left, ...)."""
    rows = torch.arange(images.shape[2], device=images.device)[None]
    columns = torch.arange(images.shape[3], device=images.device)[None]
    down = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    across = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    return (down[:, :, None] & across[:, None, :])[:, None]


def _each(amount: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1)."""
    return amount[:, None, None, None]
