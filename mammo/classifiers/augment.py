"""Random changes of training images by name: each draws, on the CPU, by how much every image moves.

What is drawn follows from torch's generator; operations.py then changes the whole batch at once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mammo.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

AUGMENTS = Registry("augment")
Amounts = dict[str, "Tensor"]  # (B,) each, by the names of operations.NEUTRAL
# (images, height, width) to what happens to each image
Draw = Callable[[int, int, int], Amounts]


@dataclass(frozen=True)
class Bundle:
    """The most that happens to an image, each way; 0 leaves it as it is."""

    mirror_x: float = 0.0  # share of the images mirrored left to right
    mirror_y: float = 0.0  # and upside down
    turn_degrees: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0  # of the side
    gamma: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    smooth: float = 0.0  # towards the mean of 3 x 3 pixels, this way only
    noise: float = 0.0  # standard deviation, of every image
    hole: float = 0.0  # longest side of a blanked rectangle, of the image's
    erased: float = 0.0  # share of the images with an erased rectangle

    def __call__(self, count: int, height: int, width: int) -> Amounts:
        """Draw `count` images' amounts."""
        import torch

        found: Amounts = {}
        for name in ("mirror_x", "mirror_y"):
            if share := getattr(self, name):
                found[name] = torch.rand(count) < share
        for name, limit, middle in (
            ("turn", math.radians(self.turn_degrees), 0),
            ("zoom", self.zoom, 0),
            ("shift_x", 2 * self.shift, 0),
            ("shift_y", 2 * self.shift, 0),
            ("gamma", self.gamma, 1),
            ("contrast", self.contrast, 1),
            ("brightness", self.brightness, 0),
        ):
            if limit:
                found[name] = middle + between(count, limit)
        if self.smooth:
            found["sharpness"] = 1 - self.smooth * torch.rand(count)
        if self.noise:
            found["noise"] = torch.full((count,), self.noise)
        if self.hole:
            found |= hole(count, height, width, side=self.hole)
        if self.erased:
            found |= erased(count, height, width, share=self.erased)
        return found


@AUGMENTS.register("none")
def unchanged() -> Draw:
    """The images as they are."""
    return Bundle()


@AUGMENTS.register("basic")
def basic() -> Draw:
    """Small turns, shifts, zooms and changes of brightness.

    No mirroring: mammograms lie with the chest wall at the left edge.
    """
    return _BASIC


@AUGMENTS.register("flip")
def flip() -> Draw:
    """`basic` after mirroring every second image left to right, for ultrasound."""
    return replace(_BASIC, mirror_x=0.5)


@AUGMENTS.register("strong")
def strong() -> Draw:
    """Twice the changes of `basic` and more, with one rectangle of up to a third blanked."""
    return _STRONG


@AUGMENTS.register("strong_flip")
def strong_flip() -> Draw:
    """`strong` after mirroring every second image left to right, for ultrasound."""
    return replace(_STRONG, mirror_x=0.5)


@AUGMENTS.register("cutout")
def cutout() -> Draw:
    """One rectangle of up to a third of the sides blanked, and nothing else."""
    return Bundle(hole=1 / 3)


@AUGMENTS.register("u24_basic")
def u24_basic() -> Draw:
    """The bundles of the U24 classifier: half mirrored left to right, 0.3 upside down."""
    return _U24


@AUGMENTS.register("u24_geometric")
def u24_geometric() -> Draw:
    """`u24_basic`, and turned by up to 8 degrees, shifted by 2 % and zoomed by 5 %."""
    return _U24_GEOMETRIC


@AUGMENTS.register("u24_intensity")
def u24_intensity() -> Draw:
    """`u24_geometric`, and smoothed by up to one 3 x 3 mean, with noise of 0.05."""
    return _U24_INTENSITY


@AUGMENTS.register("u24_all")
def u24_all() -> Draw:
    """`u24_intensity`, and a rectangle erased in every second image."""
    return replace(_U24_INTENSITY, erased=0.5)


@AUGMENTS.register("turn")
def turn() -> Draw:
    """Turned by up to 20 degrees, as the RSNA screening classifier was trained."""
    return Bundle(turn_degrees=20)


@AUGMENTS.register("jitter")
def jitter() -> Draw:
    """Mirrored both ways by 0.8 each, turned by up to 5 degrees, brightness and contrast by 0.2."""
    return Bundle(mirror_x=0.8, mirror_y=0.8, turn_degrees=5, contrast=0.2, brightness=0.2)


_BASIC = Bundle(turn_degrees=10, shift=0.05, zoom=0.1, contrast=0.1, brightness=0.05, gamma=0.1)
_STRONG = Bundle(
    turn_degrees=20, shift=0.1, zoom=0.2, contrast=0.25, brightness=0.1, gamma=0.25, hole=1 / 3
)
_U24 = Bundle(mirror_x=0.5, mirror_y=0.3)
_U24_GEOMETRIC = replace(_U24, turn_degrees=8, shift=0.02, zoom=0.05)
_U24_INTENSITY = replace(_U24_GEOMETRIC, smooth=1.0, noise=0.05)

# Largest amounts of randaugment: how far from the middle, each way.
_LARGEST = {
    "turn": (math.radians(30), 0),
    "zoom": (0.3, 0),
    "shift_x": (0.4, 0),  # of half the side
    "shift_y": (0.4, 0),
    "shear_x": (0.3, 0),
    "shear_y": (0.3, 0),
    "gamma": (0.5, 1),
    "contrast": (0.5, 1),
    "brightness": (0.3, 0),
    "sharpness": (1.0, 1),
}


@AUGMENTS.register("randaugment")
def randaugment(*, randaugment_ops: int, randaugment_strength: float) -> Draw:
    """`randaugment_ops` operations of ten for each image, after Cubuk et al. 2020.

    Each at `randaugment_strength` of its largest amount, one way or the other; all that an image
    drew happen in one pass, moves before tones. Left out of the original's are inversion,
    posterizing and equalizing, for what is bright and what is dark is what is looked at here.
    """

    def draw(count: int, height: int, width: int) -> Amounts:
        import torch

        number = len(_LARGEST)
        drawn = torch.rand(count, number).argsort(dim=1).argsort(dim=1) < randaugment_ops
        sign = torch.where(torch.rand(count, number) < 0.5, -1.0, 1.0)
        size = drawn * sign * randaugment_strength
        return {
            name: middle + largest * size[:, index]
            for index, (name, (largest, middle)) in enumerate(_LARGEST.items())
        }

    return draw


def between(count: int, limit: float) -> "Tensor":
    """`count` numbers drawn evenly from [-limit, limit]."""
    import torch

    return (torch.rand(count) * 2 - 1) * limit


def hole(count: int, height: int, width: int, *, side: float) -> Amounts:
    """A rectangle somewhere in each image, its sides up to `side` of the image's."""
    import torch

    found: Amounts = {}
    for length, size_name, start_name in ((height, "height", "top"), (width, "width", "left")):
        found[size_name] = torch.rand(count) * side * length
        found[start_name] = torch.rand(count) * (length - found[size_name])
    return found


def erased(count: int, height: int, width: int, *, share: float) -> Amounts:
    """A rectangle in a `share` of the images (Zhong et al. 2020).

    Its area is 0.02 to 0.33 of the image's, its height over its width 0.3 to 3.3, and where that
    does not fit, it is as high or as wide as the image.
    """
    import torch

    area = (0.02 + 0.31 * torch.rand(count)) * height * width
    aspect = (math.log(3.3) * (torch.rand(count) * 2 - 1)).exp()
    high = (area * aspect).sqrt().clamp(max=height)
    wide = (area / aspect).sqrt().clamp(max=width)
    top, left = torch.rand(count) * (height - high), torch.rand(count) * (width - wide)
    chosen = torch.rand(count) < share
    return {"top": top, "left": left, "height": high * chosen, "width": wide * chosen}
