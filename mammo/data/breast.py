"""Finds the breast in a picture, and the side of its chest wall: the crops to choose from."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammo.data.geometry import Frame
from mammo.data.picture import Picture, Values
from mammo.errors import DataError
from mammo.registry import Registry

# A crop finds the frame of a picture: (view, wall) -> Frame, where `wall` is the side that the
# header or the release gives for the chest wall ("left", "right" or ""), used in doubt only.
CROPS: Registry = Registry("crop")

_SMALL = 256  # longest side of the copy on which the breast is sought; finer only finds noise
_SAMPLES = 4  # values along a side of the block that a pixel of that copy averages; all where fewer
_SHINES = 0.25  # brightness above the background from which a mark outside the breast counts
_EMPTY = 0.01  # brightness up to which padding around a picture counts as empty
_FRAME = 0.85  # brightness of the white frame around a digitised film; tissue rarely reaches it
# Threshold between air and skin, as a share of the way from the air's level to Otsu's threshold:
_SKIN = 0.03  # air is black on a digital image, fat may be almost so
_SKIN_ON_FILM = 0.12  # film is fogged, and unevenly
_LABEL = 0.033  # half the width of a film label, as a share of the picture's longest side
_JUMP = 0.5  # brightness step between neighbours that only print, tape and film edges show
_DOUBT = 0.02  # difference of the two halves' breast areas below which the wall's side is unsure


@dataclass(frozen=True)
class View:
    """A small copy of a picture: `values` (h, w), each of `factor` x `factor` pixels of it."""

    values: Values
    factor: int
    shape: tuple[int, int]  # of the picture


def look_at(picture: Picture) -> View:
    """A copy of `picture` with sides of at most 256, from some of its pixels where it is big."""
    factor = max(1, -(-max(picture.shape) // _SMALL))
    step = max(1, factor // _SAMPLES)
    blocks = -(-factor // step)
    return View(_reduced(picture.sampled(step), blocks), step * blocks, picture.shape)


@CROPS.register("breast")
def crop_to_breast(view: View, wall: str = "") -> Frame:
    """Keep the breast alone, its chest wall at the left; all else (labels, arms, air) becomes 0."""
    return _frame_breast(view, _trim_empty(view.values), wall, _find_breast)


@CROPS.register("film")
def crop_film_to_breast(view: View, wall: str = "") -> Frame:
    """As `breast`, for digitised films: their white frames are cut off first."""
    content = _trim_frame(view.values, _trim_empty(view.values))
    return _frame_breast(view, content, wall, _find_breast_on_film)


@CROPS.register("none")
def keep_whole(view: View, wall: str = "") -> Frame:
    """Keep the picture as it is: no crop, no mirroring, nothing set to 0."""
    return Frame((0, view.shape[0], 0, view.shape[1]), False, wall, None, 1.0)


def _reduced(values: Values, factor: int) -> Values:
    """Averages over blocks of `factor` x `factor`."""
    return np.asarray(Image.fromarray(values).reduce(factor))


def _frame_breast(
    view: View,
    content: tuple[int, int, int, int],
    wall: str,
    find: Callable[[Values, str], tuple[NDArray[np.bool_], str]],
) -> Frame:
    top, bottom, left, right = content
    small, factor = view.values, view.factor
    mask = np.zeros(small.shape, bool)
    mask[top:bottom, left:right], seen = find(small[top:bottom, left:right], wall)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) < 2 or len(columns) < 2:
        raise DataError("no breast was found in it; give crop=none to keep the whole picture")
    part = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
    height, width = view.shape
    box = (
        int(part[0] * factor),
        int(min(part[1] * factor, height)),
        int(part[2] * factor),
        int(min(part[3] * factor, width)),
    )
    outside = small[~mask]
    background = float(np.median(outside)) if outside.size else math.nan
    return Frame(
        box=box,
        mirrored=seen == "right",
        wall=seen,
        inside=mask[part[0] : part[1], part[2] : part[3]],
        breast_share=float(mask.mean()),
        background=background,
        marks=float((outside > background + _SHINES).sum() / small.size),
    )


def _find_breast(picture: Values, wall: str) -> tuple[NDArray[np.bool_], str]:
    """Mask of the breast in `picture`, with a rim of skin, and the side of its chest wall."""
    if picture.max(initial=0.0) <= _EMPTY:
        return np.zeros(picture.shape, bool), wall
    bright = _above_air(picture)
    if not bright.any():
        return bright, wall
    mask = _largest(bright)
    seen = _wall_side(mask) or wall or "left"
    return _grow(_fill(mask, seen), 2), seen


def _find_breast_on_film(picture: Values, wall: str) -> tuple[NDArray[np.bool_], str]:
    """As `_find_breast`, without the labels and scraps of frame whose glow touches the breast."""
    from scipy import ndimage

    # tissue never jumps by half the range from pixel to pixel at this size; print and tape do,
    # and so does the film's own border, which is left out
    inner = np.pad(picture[2:-2, 2:-2], 2, mode="edge")
    jump = ndimage.maximum_filter(inner, 3) - ndimage.minimum_filter(inner, 3)
    edges = _grow(jump > _JUMP, 1)
    bright = _above_fog(picture) & ~edges
    if not bright.any():
        return bright, wall
    mask = _largest(bright)
    seen = _wall_side(mask) or wall or "left"
    mask = _without_appendices(_fill(mask, seen))
    return mask | (_grow(mask, 2) & ~_grow(edges, 1)), seen


def _above_air(picture: Values) -> NDArray[np.bool_]:
    """Pixels of a digital image brighter than air, which is black if anything is."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(picture, 1.0)
    otsu = _otsu(smooth)
    black = (smooth <= _EMPTY).mean() > 0.02  # as in the corners that no breast fills
    air = 0.0 if black else _commonest_below(smooth, otsu)
    return _without_specks(smooth > _threshold(smooth, air, otsu, _SKIN))


def _above_fog(picture: Values) -> NDArray[np.bool_]:
    """Pixels of a film brighter than the fog that air leaves on it."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(picture, 1.0)
    otsu = _otsu(smooth)
    fog = _commonest_below(smooth, otsu)
    return _without_specks(smooth > _threshold(smooth, fog, otsu, _SKIN_ON_FILM))


def _threshold(smooth: Values, air: float, otsu: float, share: float) -> float:
    """Brightness that parts air from skin, and at least four times the air's noise above it.

    Otsu's threshold alone cuts the thin tissue below the skin away from a dense breast, so the
    cut lies `share` of the way from the level of `air` towards Otsu's.
    """
    below = smooth[smooth <= air]
    noise = float(np.sqrt(np.mean((below - air) ** 2))) if below.size else 0.0
    return air + min(max(share * (otsu - air), 4 * noise), (otsu - air) / 2)


def _commonest_below(smooth: Values, limit: float) -> float:
    if limit <= 0:  # Otsu's threshold of a picture of one grey, which has no air
        return 0.0
    counts, edges = np.histogram(smooth[smooth < limit], 64, (0.0, limit))
    return float(edges[int(np.argmax(np.convolve(counts, np.ones(3), "same")))])


def _without_specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    return _grow(ndimage.minimum_filter(mask, 5, mode="nearest"), 2)


def _grow(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    from scipy import ndimage

    return np.asarray(ndimage.maximum_filter(mask, 2 * reach + 1))


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    parts, count = ndimage.label(mask)
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel(), minlength=count + 1)[1:]))


def _fill(mask: NDArray[np.bool_], wall: str) -> NDArray[np.bool_]:
    """`mask` without holes; dark tissue at the chest wall is a hole too, the wall closes it."""
    from scipy import ndimage

    parts, _ = ndimage.label(~mask)
    open_sides = [parts[0], parts[-1], parts[:, -1] if wall == "left" else parts[:, 0]]
    outside = np.isin(parts, np.unique(np.concatenate(open_sides)))
    return mask | ~(outside | mask)


def _without_appendices(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`mask` without what hangs on it by less than a label's width."""
    from scipy import ndimage

    reach = max(2, round(max(mask.shape) * _LABEL))
    core = np.asarray(ndimage.minimum_filter(mask, 2 * reach + 1, mode="nearest"))
    return mask & _grow(_largest(core), reach + 3) if core.any() else mask


def _otsu(values: Values) -> float:
    """Threshold of the greatest variance between the two classes (Otsu 1979)."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    total, weighted = float(counts.sum()), np.cumsum(counts * centres)
    above = total - below
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (weighted[-1] * below / total - weighted[:-1]) ** 2 / (below * above)
    return float(centres[int(np.argmax(np.nan_to_num(spread)))])


def _wall_side(mask: NDArray[np.bool_]) -> str:
    """Side on which more of the breast lies within its bounding box; empty when undecided."""
    if min(mask[:, 0].mean(), mask[:, -1].mean()) > 0.7:
        return ""  # a breast wider than the detector has no nipple side
    columns = np.flatnonzero(mask.any(0))
    area = mask[:, columns[0] : columns[-1] + 1].sum(0).astype(float)
    half = len(area) // 2
    left, right = area[:half].sum(), area[len(area) - half :].sum()
    if abs(left - right) < _DOUBT * (left + right):
        return ""
    return "left" if left > right else "right"


def _trim_empty(small: Values) -> tuple[int, int, int, int]:
    """Box (top, bottom, left, right) without the empty lines around it."""
    return _trim(small, (0, small.shape[0], 0, small.shape[1]), _is_empty)


def _trim_frame(small: Values, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """`box` without the film's frame: white strips, bright lines at top and bottom, the rim."""
    top, bottom, left, right = box
    view = small[top:bottom, left:right]
    white = view > _FRAME
    across, down = white.mean(1) > 0.7, white.mean(0) > 0.7
    inner = (
        top + max(_strip(across), _bright_lines(view)),
        bottom - max(_strip(across[::-1]), _bright_lines(view[::-1])),
        left + _strip(down),
        right - _strip(down[::-1]),
    )
    top, bottom, left, right = _trim(small, inner, _is_empty) if inner != box else box
    return top + 1, bottom - 1, left + 1, right - 1  # the rim is half frame, half film


def _bright_lines(view: Values) -> int:
    """Number of first lines of `view` that shine where the film further in is darker.

    Asked of top and bottom alone: towards the chest wall tissue gets brighter by itself.
    """
    reach = max(2, len(view) // 20)
    shine = (view[:reach] - view[reach + 1]) > 0.15
    bright = np.flatnonzero(shine.mean(1) > 0.2)
    return int(bright[-1]) + 1 if len(bright) else 0


def _strip(white: NDArray[np.bool_]) -> int:
    """Length of the white strip at the start of `white`, its blurred last line included."""
    starts = np.flatnonzero(white[: max(4, len(white) // 32)])
    if not len(starts):
        return 0
    dark = np.flatnonzero(~white[starts[0] :])
    end = int(starts[0] + dark[0]) if len(dark) else len(white)
    return end + 1 if end < len(white) // 3 else 0  # a strip wider than that is not a frame


def _is_empty(line: Values) -> bool:
    return bool((line > _EMPTY).mean() < 0.03)  # specks of dust are allowed


def _trim(
    small: Values, box: tuple[int, int, int, int], drop: Callable[[Values], bool]
) -> tuple[int, int, int, int]:
    top, bottom, left, right = box
    before = None
    while before != (top, bottom, left, right):
        before = (top, bottom, left, right)
        if bottom - top > 8:
            top += drop(small[top, left:right])
            bottom -= drop(small[bottom - 1, left:right])
        if right - left > 8:
            left += drop(small[top:bottom, left])
            right -= drop(small[top:bottom, right - 1])
    return top, bottom, left, right
