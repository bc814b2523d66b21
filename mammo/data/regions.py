"""Draws the lesions of a record, as masks, circles, polygons and boxes, into one mask of its file.

A pixel is marked when its middle is inside; the middle of pixel (x, y) is the point (x, y), as in
the tables of the releases.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammo.data.release import Record
from mammo.errors import DataError

Mask = NDArray[np.bool_]
Point = tuple[float, float]


def draw_regions(
    record: Record, shape: tuple[int, int], read: Callable[[Path, int], Mask]
) -> Mask | None:
    """All lesions of `record` joined (H, W); None where it names none.

    `read` gives the mask in a file, the record's number of the mask with it.
    """
    if not (record.masks or record.circles or record.polygons or record.boxes):
        return None
    joined = np.zeros(shape, bool)
    for number, path in enumerate(record.masks):
        mask = read(path, number)
        if mask.shape != shape:
            raise DataError(f"its mask has shape {mask.shape}, the picture {shape}")
        joined |= mask
    for circle in record.circles:
        draw_circle(joined, *circle)
    for corners in record.polygons:
        draw_polygon(joined, corners)
    for box in record.boxes:
        draw_box(joined, *box)
    return joined


def draw_circle(mask: Mask, x: float, y: float, radius: float) -> None:
    """Mark what is no further than `radius` from (x, y)."""
    _require_finite(x, y, radius)
    top, bottom = _within(y - radius, y + radius + 1, mask.shape[0])
    left, right = _within(x - radius, x + radius + 1, mask.shape[1])
    rows, columns = np.ogrid[top:bottom, left:right]
    mask[top:bottom, left:right] |= (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def draw_box(mask: Mask, x0: float, y0: float, x1: float, y1: float) -> None:
    """Mark from (x0, y0) up to, but without, (x1, y1)."""
    _require_finite(x0, y0, x1, y1)
    top, bottom = _within(y0, y1, mask.shape[0])
    left, right = _within(x0, x1, mask.shape[1])
    mask[top:bottom, left:right] = True


def draw_polygon(mask: Mask, corners: Sequence[Point]) -> None:
    """Mark the inside of a polygon by the even-odd rule; one or two corners mark themselves."""
    _require_finite(*(value for corner in corners for value in corner))
    if len(corners) < 3:
        for x, y in corners:
            draw_circle(mask, x, y, 0.75)  # at least the nearest pixel
        return
    x, y = np.array(corners, float).T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    for row in range(*_within(y.min(), y.max() + 1, mask.shape[0])):
        crossing = (y <= row) != (next_y <= row)
        slope = (next_x[crossing] - x[crossing]) / (next_y[crossing] - y[crossing])
        ends = np.sort(x[crossing] + (row - y[crossing]) * slope)
        for left, right in zip(ends[::2], ends[1::2], strict=True):
            mask[row, slice(*_within(left, right, mask.shape[1]))] = True


def _within(first: float, last: float, size: int) -> tuple[int, int]:
    """Whole numbers from `first` up to, but without, `last`, cut to 0 to `size`."""
    low, high = (min(max(math.ceil(end), 0), size) for end in (first, last))
    return low, max(low, high)


def _require_finite(*values: float) -> None:
    if not all(map(math.isfinite, values)):
        raise DataError("a lesion of it has coordinates that are no numbers")
