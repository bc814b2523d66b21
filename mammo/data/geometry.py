"""How a picture, its breast once found, is laid on the stored canvas, and its mask with it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Values = NDArray[np.float32]  # (H, W) in [0, 1], bright tissue on dark air


@dataclass(frozen=True)
class Frame:
    """What is kept of a picture and how it is turned; all in pixels of the file."""

    box: tuple[int, int, int, int]  # top, bottom, left, right
    mirrored: bool  # True: left and right are swapped
    wall: str  # side of the chest wall in the file as seen in the pixels: left, right or ""
    inside: NDArray[np.bool_] | None  # breast in a small copy of the box; None keeps everything
    breast_share: float  # of the picture's area


def lay(values: Values, frame: Frame, size: tuple[int, int]) -> Values:
    """Crop, mirror and resize `values` into `size` (H, W) by area average, padded with 0.

    A cropped breast stands against the left edge, vertically centred; a whole picture in the
    middle.
    """
    canvas = np.zeros(size, np.float32)
    rows, columns = _place(frame, size)
    canvas[rows, columns] = _resize(values, frame, (rows.stop - rows.start, columns))
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
    covered = _resize(mask.astype(np.float32), frame, (rows.stop - rows.start, columns))
    canvas[rows, columns] = np.where(covered > 0.5, 255, 0)
    return canvas


def breast_values(values: Values, frame: Frame) -> Values:
    """The values inside the breast on a grid of about the small copy's size, flat."""
    top, bottom, left, right = frame.box
    cut = values[top:bottom, left:right]
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


def _resize(values: Values, frame: Frame, target: tuple[int, slice]) -> Values:
    top, bottom, left, right = frame.box
    height, columns = target
    shrinks = height <= bottom - top
    # BOX is the exact area average when shrinking; when enlarging it would repeat pixels
    how = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    cut = Image.fromarray(np.ascontiguousarray(values[top:bottom, left:right]))
    resized = np.asarray(cut.resize((columns.stop - columns.start, height), how))
    return _turn(resized, frame)


def _turn(values: NDArray[Any], frame: Frame) -> NDArray[Any]:
    return values[:, ::-1] if frame.mirrored else values
