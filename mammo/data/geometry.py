"""How a picture, its breast once found, is laid on the stored canvas, and its mask with it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammo.data.picture import Picture, Values

Box = tuple[int, int, int, int]  # top, bottom, left, right

_GRID = 512  # pixels along a side that are enough for percentiles of a whole picture
_BAND = 16  # stored rows made at a time, whose sources stay in the processor's cache


@dataclass(frozen=True)
class Frame:
    """What is kept of a picture and how it is turned; all in pixels of the file."""

    box: Box
    mirrored: bool  # True: left and right are swapped
    wall: str  # side of the chest wall in the file as seen in the pixels: left, right or ""
    inside: NDArray[np.bool_] | None  # breast in a small copy of the box; None keeps everything
    breast_share: float  # of the picture's area
    background: float = math.nan  # median grey outside the breast
    marks: float = math.nan  # share of the picture that shines outside the breast


def lay(picture: Picture, frame: Frame, size: tuple[int, int]) -> Values:
    """Crop, mirror and resize `picture` into `size` (H, W) by area average, padded with 0.

    A cropped breast stands against the left edge, vertically centred; a whole picture in the
    middle.
    """
    canvas = np.zeros(size, np.float32)
    rows, columns = _place(frame, size)
    target = (rows.stop - rows.start, columns.stop - columns.start)
    canvas[rows, columns] = _turn(_resize(picture.cut, frame.box, target), frame)
    if frame.inside is not None:
        inside = Image.fromarray(_turn(frame.inside, frame).astype(np.float32))
        kept = np.asarray(inside.resize(target[::-1], Image.Resampling.BILINEAR)) > 0.5
        canvas[rows, columns] *= kept
    return np.clip(canvas, 0.0, 1.0, out=canvas)


def lay_mask(mask: NDArray[np.bool_], frame: Frame, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Lay `mask` (H, W) as `lay` lays its picture; a pixel more than half covered is 255."""
    canvas = np.zeros(size, np.uint8)
    rows, columns = _place(frame, size)
    whole = Picture(mask, None, 1)
    target = (rows.stop - rows.start, columns.stop - columns.start)
    covered = _turn(_resize(whole.cut, frame.box, target), frame)
    canvas[rows, columns] = np.where(covered > 0.5, 255, 0)
    return canvas


def breast_values(picture: Picture, frame: Frame) -> Values:
    """Grey inside the breast on a coarse grid, flat."""
    top, bottom, left, right = frame.box
    if frame.inside is None:
        return picture.sampled(max(1, max(picture.shape) // _GRID)).ravel()
    rows = np.linspace(top, bottom - 1, frame.inside.shape[0]).round().astype(int)
    columns = np.linspace(left, right - 1, frame.inside.shape[1]).round().astype(int)
    return picture.at(rows, columns)[frame.inside]


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


def _resize(cut: Callable[[Box], Values], box: Box, target: tuple[int, int]) -> Values:
    """What `cut` gives within `box`, resized to `target` (H, W); band by band where it shrinks."""
    top, bottom, left, right = box
    height, width = target
    if height > bottom - top:  # an average over areas would repeat pixels
        enlarged = Image.fromarray(cut(box)).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(enlarged)
    scale = (bottom - top) / height
    resized = np.empty(target, np.float32)
    for first in range(0, height, _BAND):
        last = min(first + _BAND, height)
        start, end = int(first * scale), min(math.ceil(last * scale), bottom - top)
        part = Image.fromarray(cut((top + start, top + end, left, right)))
        area = (0, first * scale - start, right - left, min(last * scale, end) - start)
        shrunk = part.resize((width, last - first), Image.Resampling.BOX, area)
        resized[first:last] = np.asarray(shrunk)
    return resized


def _turn(values: NDArray[Any], frame: Frame) -> NDArray[Any]:
    return values[:, ::-1] if frame.mirrored else values
