"""How a picture, its breast once found, is laid on the stored canvas, and its mask with it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammo.data.picture import Values


@dataclass(frozen=True)
class Frame:
    """What is kept of a picture and how it is turned; all in pixels of the file."""

    box: tuple[int, int, int, int]  # top, bottom, left, right
    mirrored: bool  # True: left and right are swapped
    wall: str  # side of the chest wall in the file as seen in the pixels: left, right or ""
    inside: NDArray[np.bool_] | None  # breast in a small copy of the box; None keeps everything
    breast_share: float  # of the picture's area
    background: float = math.nan  # median grey outside the breast
    marks: float = math.nan  # share of the picture that shines outside the breast

    def cut(self, values: NDArray[Any]) -> NDArray[Any]:
        """What is kept of `values` (H, W), all of them."""
        top, bottom, left, right = self.box
        return values[top:bottom, left:right]


def lay(cut: Values, frame: Frame, size: tuple[int, int]) -> Values:
    """Mirror and resize `cut`, the picture within the box, into `size` (H, W), padded with 0.

    Where it shrinks each stored pixel is the average of the area that it covers.

    A cropped breast stands against the left edge, vertically centred; a whole picture in the
    middle.
    """
    canvas = np.zeros(size, np.float32)
    rows, columns = _place(frame, size)
    canvas[rows, columns] = _resize(cut, frame, (rows.stop - rows.start, columns))
    if frame.inside is not None:
        inside = Image.fromarray(_turn(frame.inside, frame).astype(np.float32))
        target = (columns.stop - columns.start, rows.stop - rows.start)
        kept = np.asarray(inside.resize(target, Image.Resampling.BILINEAR)) > 0.5
        canvas[rows, columns] *= kept
    return np.clip(canvas, 0.0, 1.0, out=canvas)


def lay_mask(mask: NDArray[np.bool_], frame: Frame, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Lay `mask` (H, W) as `lay` lays its picture; a pixel more than half covered is 255."""
    canvas = np.zeros(size, np.uint8)
    rows, columns = _place(frame, size)
    cut = frame.cut(mask).astype(np.float32)
    covered = _resize(cut, frame, (rows.stop - rows.start, columns))
    canvas[rows, columns] = np.where(covered > 0.5, 255, 0)
    return canvas


def breast_values(cut: Values, frame: Frame) -> Values:
    """Values of `cut` inside the breast on a grid of about the small copy's size, flat."""
    if frame.inside is None:
        return cut.ravel()
    rows = np.linspace(0, cut.shape[0] - 1, frame.inside.shape[0]).round().astype(int)
    columns = np.linspace(0, cut.shape[1] - 1, frame.inside.shape[1]).round().astype(int)
    sampled: Values = cut[np.ix_(rows, columns)]
    return sampled[frame.inside]


def stored_pixel_mm(pixel_mm: float, frame: Frame, size: tuple[int, int]) -> float:
    """Width in mm of one stored pixel when one of the file is `pixel_mm`."""
    return pixel_mm / _scale(frame, size)


def _scale(frame: Frame, size: tuple[int, int]) -> float:
    top, bottom, left, right = frame.box
    return min(size[0] / (bottom - top), size[1] / (right - left))


def _place(frame: Frame, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the canvas that the box covers."""
    top, bottom, left, right = frame.box
    scale = _scale(frame, size)
    height = min(size[0], max(1, round((bottom - top) * scale)))
    width = min(size[1], max(1, round((right - left) * scale)))
    row = (size[0] - height) // 2
    column = (size[1] - width) // 2 if frame.inside is None else 0
    return slice(row, row + height), slice(column, column + width)


def _resize(cut: Values, frame: Frame, target: tuple[int, slice]) -> Values:
    height, columns = target
    # BOX is the exact area average when shrinking; when enlarging it would repeat pixels
    how = Image.Resampling.BOX if height <= cut.shape[0] else Image.Resampling.BILINEAR
    picture = Image.fromarray(np.ascontiguousarray(cut))
    resized = np.asarray(picture.resize((columns.stop - columns.start, height), how))
    return _turn(resized, frame)


def _turn(values: NDArray[Any], frame: Frame) -> NDArray[Any]:
    return values[:, ::-1] if frame.mirrored else values
