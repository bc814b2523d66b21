"""What stored pictures show at a glance: nothing, too much light, a negative, print, no breast."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from mammo.data.checks import NOTE, WARNING, Finding
from mammo.data.dataset import Dataset

Values = NDArray[np.float32]

THUMBNAIL = 16  # side of the pictures a probe may look at
_CHUNK = 64  # pictures read at once
_SIDE = 128  # longest side of the copy that is looked at
_CONSTANT = 1 / 255  # brightness range below which there is nothing to see
_DARK = 0.02  # brightest value (99.9th percentile) of an empty picture
_TISSUE = 0.02  # brightness above which a pixel is not background; air is set to 0
_WHITE = 0.995
_SATURATED = 0.2  # share of the tissue that is white; a dense breast has below a tenth
_BRIGHTER = 0.15  # by which the corners of a negative outshine its middle, of the range
_EVEN = 0.08  # standard deviation that inverted air stays below, and tissue seldom does
_LITTLE = 0.05  # share of the stored picture that a breast fills at least,
_LESS = 0.25  # and of the share that is usual in the dataset
_PRINT = 0.5  # brightness that letters reach
_SPOT = (4, 0.02)  # smallest (pixels) and largest (share) piece of print
_STEEP = 0.2  # brightness step within a pixel at the edge of print
_AIR = 0.15  # share of dark pixels without which nothing can stand apart from the breast


@dataclass(frozen=True)
class Glance:
    """One row an image: `looks` with what was measured, thumbnails and borders for the probes."""

    looks: pd.DataFrame
    thumbnails: Values  # (N, THUMBNAIL^2)
    borders: Values  # (N, 12): medians and spreads of corners and edges


def glance(data: Dataset, rows: Sequence[int]) -> Glance:
    """Look at the first channel of every image of `rows`, in their order."""
    looks, thumbnails, borders = [], [], []
    for start in range(0, len(rows), _CHUNK):
        for picture in data.images(list(rows[start : start + _CHUNK]))[:, 0]:
            small = _reduced(picture, _SIDE)
            looks.append(_look(small))
            thumbnails.append(_thumbnail(picture))
            borders.append(_borders(small))
    return Glance(pd.DataFrame(looks, index=list(rows)), np.stack(thumbnails), np.stack(borders))


def picture_findings(looks: pd.DataFrame, *, cropped: bool) -> list[Finding]:
    """Findings of what `glance` measured; `cropped` says that air was set to 0."""
    empty = (looks["range"] < _CONSTANT) | (looks["peak"] < _DARK)
    usual = float(looks.loc[~empty, "tissue"].median()) if (~empty).any() else 0.0
    little = ~empty & (looks["tissue"] < max(_LITTLE, _LESS * usual))
    what = [
        ("empty picture", WARNING, empty, "hold nothing: constant or black"),
        (
            "saturated picture",
            WARNING,
            ~looks["inverted"] & (looks["white"] > _SATURATED),
            f"are white in more than {_SATURATED:.0%} of the tissue",
        ),
        (
            "negative",
            WARNING,
            ~empty & looks["inverted"],
            "have corners brighter than the middle: stored inverted?",
        ),
        ("little breast", WARNING, little, "show very little breast"),
        (
            "print in the picture",
            NOTE,
            ~empty & (looks["print"] > 0) & (not cropped),  # cropped, there is nothing but breast
            "have bright marks apart from the breast: letters or labels burned in?",
        ),
    ]
    return [
        Finding(severity, name, f"{int(mine.sum())} images {text}", int(mine.sum()), _each(mine))
        for name, severity, mine, text in what
        if mine.any()
    ]


def removed_marks(frame: pd.DataFrame) -> list[Finding]:
    """What shone outside the breast in the files, by the manifest."""
    marked = frame.index[frame["marks"] > 1e-3]
    if not len(marked):
        return []
    text = (
        f"{len(marked)} images had labels or marks beside the breast in the file, "
        "which a crop to the breast leaves out"
    )
    return [Finding(NOTE, "marks in the file", text, len(marked), _rows(marked))]


def _each(mine: pd.Series) -> tuple[tuple[int, ...], ...]:
    return _rows(mine.index[mine])


def _rows(index: pd.Index) -> tuple[tuple[int, ...], ...]:
    return tuple((int(row),) for row in index)


def _reduced(picture: Values, side: int) -> Values:
    factor = -(-max(picture.shape) // side)
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).reduce(factor))


def _thumbnail(picture: Values) -> Values:
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)).ravel()


def _look(picture: Values) -> dict[str, float]:
    """Brightness, share of tissue, whether it is a negative, and the pieces of print."""
    tissue = picture > _TISSUE
    inside = _without_padding(picture)
    return {
        "range": float(picture.max() - picture.min()),
        "peak": float(np.percentile(picture, 99.9)),
        "tissue": float(tissue.mean()),
        "white": float((picture >= _WHITE).sum() / max(1, tissue.sum())),
        "inverted": _is_negative(inside),
        "print": _pieces_of_print(inside),
    }


def _without_padding(picture: Values) -> Values:
    rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
    if len(rows) < 8 or len(columns) < 8:
        return picture
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _corners(picture: Values) -> list[Values]:
    height, width = (max(1, round(side * 0.12)) for side in picture.shape)
    return [
        picture[vertical, horizontal]
        for vertical in (slice(height), slice(-height, None))
        for horizontal in (slice(width), slice(-width, None))
    ]


def _is_negative(picture: Values) -> bool:
    """Three corners or four outshine the middle; the fourth may lie on the pectoral muscle."""
    height, width = picture.shape
    middle = picture[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None]
    limit = float(np.median(middle)) + _BRIGHTER
    corners = _corners(picture)
    bright = [float(np.median(each)) > limit and float(each.std()) < _EVEN for each in corners]
    return sum(bright) >= 3


def _pieces_of_print(picture: Values) -> int:
    """Bright, sharp-edged pieces that stand apart from the largest one, on dark air."""
    from scipy import ndimage

    if (picture < 0.05).mean() < _AIR:
        return 0
    parts, count = ndimage.label(picture > 0.1)
    if count < 2:
        return 0
    numbers = np.arange(1, count + 1)
    sizes = np.asarray(ndimage.sum_labels(np.ones_like(picture), parts, numbers))
    peaks = np.asarray(ndimage.maximum(picture, parts, numbers))
    steps = ndimage.maximum_filter(picture, 3) - ndimage.minimum_filter(picture, 3)
    edges = np.asarray(ndimage.maximum(steps, parts, numbers))
    smallest, largest = _SPOT
    printed = (sizes >= smallest) & (sizes <= largest * picture.size)
    printed &= (peaks > _PRINT) & (edges > _STEEP)
    printed[int(np.argmax(sizes))] = False
    return int(printed.sum())


def _borders(picture: Values) -> Values:
    """Medians and spreads of the corners, and medians of the four edges, without the inside."""
    edge = max(1, math.ceil(min(picture.shape) * 0.04))
    edges = [picture[:edge], picture[-edge:], picture[:, :edge], picture[:, -edge:]]
    corners = _corners(picture)
    values = [float(np.median(each)) for each in (*corners, *edges)]
    return np.array([*values, *(float(each.std()) for each in corners)], np.float32)
