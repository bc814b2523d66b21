"""A grid of images as one picture."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

GAP = 2  # pixels between images
GREY = 128  # of the gap: neither air nor breast
LEGIBLE = 128  # pixels that an image should be high to be looked at


def enlarged(images: NDArray[Any]) -> NDArray[Any]:
    """`images` (..., H, W) with each pixel repeated until they are `LEGIBLE` high or just below."""
    times = max(1, LEGIBLE // images.shape[-2])
    return images.repeat(times, axis=-2).repeat(times, axis=-1)


def grid(images: NDArray[Any], *, columns: int = 0) -> NDArray[np.uint8]:
    """Images (N, C, H, W) in [0, 1], `columns` a row (0: all in one), as uint8 (H', W').

    The window is fixed, 0 black and 1 white; the channels of an image stand side by side.
    """
    count, channels, height, width = images.shape
    columns = columns or count
    rows = -(-count // columns)
    wide = channels * width
    canvas = np.full((rows * (height + GAP) - GAP, columns * (wide + GAP) - GAP), GREY, np.uint8)
    for number, image in enumerate(images):
        top = number // columns * (height + GAP)
        left = number % columns * (wide + GAP)
        flat = np.concatenate(list(image), axis=1)
        canvas[top : top + height, left : left + wide] = np.rint(flat.clip(0, 1) * 255)
    return canvas
