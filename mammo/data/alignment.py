"""How well two pictures agree once one is laid on the other: shifted, stretched and mirrored."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Values = NDArray[np.float32]  # (H, W)

SIDE = 128  # of the square every picture is brought to; finer only sees noise
COARSE = 64  # side at which two pictures are laid on each other
_REACH = 8  # largest shift looked for, in pixels of COARSE: an eighth of the picture
_STEPS = 12  # of Gauss-Newton; it has settled after eight, or never will
_STRETCH = (0.8, 1.25)  # smallest and largest stretch of an axis
_OVERLAP = 0.6  # of the picture that must be common to both
_RIM = 4  # pixels of SIDE left out at the border, where a crop cuts structures
_EMPTY = 0.05  # part of the way from the darkest line's mean to a bright one's: padding lies below
# Band of structures compared, as sigmas in pixels of SIDE: from, to, and the neighbourhood whose
# contrast is made 1. The first sees what two pictures share at all, the second what only one
# and the same picture has: unrelated mammograms share the outline of the breast.
_COARSE_BAND = (1.0, 6.0, 12.0)
_FINE_BAND = (0.8, 3.0, 8.0)
_FAINT = 0.01  # contrast below which a neighbourhood is noise, of the range 1


@dataclass(frozen=True)
class Prints:
    """What is kept of a picture to compare it: both arrays without unit, mean near 0."""

    coarse: Values  # (COARSE, COARSE)
    fine: Values  # (SIDE, SIDE)


@dataclass(frozen=True)
class Fit:
    """How the second picture is laid on the first, and how well they agree there."""

    similarity: float  # correlation of fine structures, 1 for the same picture
    mirrored: bool


def prints(picture: Values) -> Prints:
    """Fingerprints of `picture` (H, W) in [0, 1]; brightness and contrast leave no trace."""
    from scipy import ndimage

    square = canonical(picture)
    half = _halved(_band(square, _COARSE_BAND))
    return Prints(ndimage.gaussian_filter(half, 0.7), _band(square, _FINE_BAND))


def canonical(picture: Values) -> Values:
    """`picture` without empty borders, stretched to (SIDE, SIDE)."""
    cut = Image.fromarray(np.ascontiguousarray(_content(picture), np.float32))
    return np.asarray(cut.resize((SIDE, SIDE), Image.Resampling.HAMMING))


def fit(first: Prints, second: Prints) -> Fit:
    """Lay `second` on `first` by the better of both mirrorings."""
    placed = [(*_shift(first.coarse, _turned(second.coarse, flip)), flip) for flip in (False, True)]
    _, down, right, mirrored = max(placed)
    place = _refine(first.coarse, _turned(second.coarse, mirrored), down, right)
    if place is None:
        return Fit(0.0, mirrored)
    return Fit(_agreement(first.fine, _turned(second.fine, mirrored), place), mirrored)


def shifted_likeness(first: Values, second: Values) -> float:
    """Best correlation of two coarse prints over shifts and mirroring: cheap, for a first look."""
    return max(_shift(first, second)[0], _shift(first, _turned(second, True))[0])


def _content(picture: Values) -> Values:
    """`picture` without the lines and columns of padding at its borders."""
    spans = []
    for axis in (1, 0):
        line = picture.mean(axis)
        floor, bright = float(line.min()), float(np.percentile(line, 95))
        inside = np.flatnonzero(line > floor + _EMPTY * (bright - floor))
        spans.append((inside[0], inside[-1] + 1) if len(inside) else (0, len(line)))
    (top, bottom), (left, right) = spans
    if bottom - top < 8 or right - left < 8:
        return picture
    return picture[top:bottom, left:right]


def _band(square: Values, sigmas: tuple[float, float, float]) -> Values:
    from scipy import ndimage

    near, far, around = sigmas
    band = ndimage.gaussian_filter(square, near) - ndimage.gaussian_filter(square, far)
    contrast = np.sqrt(ndimage.gaussian_filter(band * band, around))
    return np.asarray(band / (contrast + _FAINT), np.float32)


def _halved(values: Values) -> Values:
    return np.asarray(values.reshape(COARSE, 2, COARSE, 2).mean((1, 3)))


def _turned(values: Values, flip: bool) -> Values:
    return np.ascontiguousarray(values[:, ::-1]) if flip else values


def _shift(first: Values, second: Values) -> tuple[float, int, int]:
    """Best circular correlation over shifts of `second` up to _REACH: value, down, right."""
    from scipy import fft

    both = fft.rfft2(first) * np.conj(fft.rfft2(second))
    near = np.r_[0 : _REACH + 1, -_REACH:0]
    found = fft.irfft2(both, s=first.shape)[np.ix_(near, near)]
    row, column = np.unravel_index(int(np.argmax(found)), found.shape)
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(found[row, column]) / max(size, 1e-6), int(near[row]), int(near[column])


def _refine(
    first: Values, second: Values, down: int, right: int
) -> tuple[float, float, float, float] | None:
    """Stretch and shift (rows, columns) that lay `second` on `first`, by Gauss-Newton.

    Point (y, x) of the first, from the middle in halves of the side, lies in the second at
    (place[0] y + place[2], place[1] x + place[3]), in the same unit.
    """
    from scipy import ndimage

    half = COARSE / 2
    rows, columns = _grid(COARSE)
    layers = np.stack([second, *np.gradient(second)])
    place = np.array([1.0, 1.0, -down / half, -right / half])
    best: tuple[float, tuple[float, float, float, float] | None] = (-1.0, None)
    for _ in range(_STEPS):
        points, common = _points(rows, columns, place, COARSE, 0)
        if common.mean() < _OVERLAP:
            break
        moved = [ndimage.map_coordinates(each, points, order=1)[common] for each in layers]
        target = first[common]
        best = max(best, (_correlation(target, moved[0]), tuple(place.tolist())))
        scale = max(float(moved[0] @ target) / max(float(moved[0] @ moved[0]), 1e-6), 0.3)
        down_slope, right_slope = moved[1] * half, moved[2] * half
        slopes = np.stack(
            [down_slope * rows[common], right_slope * columns[common], down_slope, right_slope], 1
        )
        square = slopes.T @ slopes + 1e-6 * np.eye(4)
        step = np.linalg.solve(square, slopes.T @ (target / scale - moved[0]))
        place = place + np.clip(step, -0.05, 0.05)
        place[:2] = np.clip(place[:2], *_STRETCH)
    return best[1]


def _agreement(first: Values, second: Values, place: tuple[float, float, float, float]) -> float:
    """Correlation of the fine prints where both have pixels."""
    from scipy import ndimage

    rows, columns = _grid(SIDE)
    points, common = _points(rows, columns, np.asarray(place), SIDE, _RIM)
    if not common.any():
        return 0.0
    moved = ndimage.map_coordinates(second, [each[common] for each in points], order=1)
    return _correlation(first[common], moved)


def _grid(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns of pixel centres (side, side), from the middle in halves of the side."""
    line = (np.arange(side) + 0.5) * 2 / side - 1
    rows, columns = np.meshgrid(line, line, indexing="ij")
    return rows, columns


def _points(
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    place: NDArray[np.float64],
    side: int,
    rim: int,
) -> tuple[list[NDArray[np.float64]], NDArray[np.bool_]]:
    """Pixel coordinates in the second picture, and which of both lie `rim` inside."""
    points = [
        (place[0] * rows + place[2] + 1) * side / 2 - 0.5,
        (place[1] * columns + place[3] + 1) * side / 2 - 0.5,
    ]
    common = np.ones(rows.shape, bool)
    for each in points:
        common &= (each >= rim) & (each <= side - 1 - rim)
    common[:rim] = common[side - rim :] = False
    common[:, :rim] = common[:, side - rim :] = False
    return points, common


def _correlation(first: Values, second: Values) -> float:
    first, second = first - first.mean(), second - second.mean()
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / size if size > 1e-6 else 0.0
