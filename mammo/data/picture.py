"""A decoded picture: the values that its file stores, and the grey that each of them stands for."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.errors import DataError

Values = NDArray[np.float32]  # (H, W) in [0, 1], bright tissue on dark air

PERCENTILES = (0.5, 99.5)  # of the breast's pixels, mapped to 0 and 1 by intensity "percentile"
MAX_PIXELS = 1 << 26  # 8192 x 8192, more than any detector or film scanner gives
_STRIP = 16  # rows looked up at a time, which stay in the processor's cache


class Omitted(DataError):
    """A flag in the file's header leaves the image out; nothing is wrong with the file."""


@dataclass(frozen=True)
class Reading:
    """How the values of a file become grey, and which of its frames is taken."""

    intensity: str = "header"
    fixed_range: tuple[float, float] | None = None
    frames: str = "refuse"
    for_processing: str = "refuse"
    slice_index: int = -1
    exclude: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Header:
    """What a file's header tells of the picture, mostly DICOM's; empty where it tells nothing."""

    laterality: str = ""  # L or R
    view: str = ""  # CC or MLO
    wall: str = ""  # side of the chest wall by PatientOrientation: left, right or empty
    vendor: str = ""
    age: float = math.nan  # years
    pixel_mm: float = math.nan
    flags: tuple[str, ...] = ()  # of release.FLAGS, sorted
    synthetic: bool = False  # the file says that a generator drew it


@dataclass(frozen=True)
class Picture:
    """One decoded channel."""

    stored: NDArray[Any]  # (H, W): integers as the file holds them, or grey
    greys: Values | None  # grey in [0, 1] of every stored value by its bits; None: stored is grey
    bits: int  # stored bits of a pixel
    low: float = math.nan  # the file's value, after its modality transform, that 0 stands for
    high: float = math.nan  # and 1
    header: Header = field(default_factory=Header)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.stored.shape[0], self.stored.shape[1]

    @property
    def values(self) -> Values:
        """Grey of the whole picture."""
        height, width = self.shape
        return self.cut((0, height, 0, width))

    def cut(self, box: tuple[int, int, int, int]) -> Values:
        """Grey within `box` (top, bottom, left, right)."""
        top, bottom, left, right = box
        return self._grey(self.stored[top:bottom, left:right])

    def sampled(self, step: int) -> Values:
        """Grey of every `step`-th row and column."""
        return self._grey(self.stored[::step, ::step])

    def at(self, rows: NDArray[Any], columns: NDArray[Any]) -> Values:
        """Grey where `rows` cross `columns`, both whole numbers."""
        return self._grey(self.stored[np.ix_(rows, columns)])

    def turned(self) -> "Picture":
        """The picture turned by 180 degrees."""
        return Picture(
            self.stored[::-1, ::-1], self.greys, self.bits, self.low, self.high, self.header
        )

    def stretched(self, breast: Values) -> "Picture":
        """With the percentiles of `breast` (grey, any shape) as 0 and 1, all else clipped."""
        black, white = (float(value) for value in np.percentile(breast, PERCENTILES))
        span = max(white - black, 1e-6)
        table = self.stored if self.greys is None else self.greys
        scaled = np.clip((table - np.float32(black)) / np.float32(span), 0.0, 1.0)
        stored, greys = (scaled, None) if self.greys is None else (self.stored, scaled)
        low, high = (to_units(np.array(end), self.low, self.high) for end in (black, black + span))
        return Picture(stored, greys, self.bits, float(low), float(high), self.header)

    def _grey(self, part: NDArray[Any]) -> Values:
        if self.greys is None:
            return np.asarray(part, np.float32)
        index = part.view(f"u{part.dtype.itemsize}")
        grey = np.empty(part.shape, np.float32)
        for top in range(0, len(part), _STRIP):
            rows = slice(top, top + _STRIP)
            # the table has an entry for every value, so that clipping changes none; it is faster
            np.take(self.greys, index[rows], out=grey[rows], mode="clip")
        return grey


def to_units(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Stored grey in [0, 1] as the file's values, of which `low` was stored as 0, `high` as 1.

    With the manifest's grey_low and grey_high it maps a synthetic image back to the units of the
    real ones. It is exact for the policies none, fixed and percentile and for linear windows,
    within the window; a SIGMOID or a table of the header bends the scale between its ends.
    """
    return np.asarray(low + np.asarray(values, np.float64) * (high - low))


def require_size(height: int, width: int) -> None:
    """Refuse a picture that is empty or absurdly big, before it is decoded."""
    if height < 1 or width < 1:
        raise DataError(f"it is {height} x {width} pixels; an empty picture cannot be used")
    if height * width > MAX_PIXELS:
        raise DataError(
            f"it is {height} x {width} pixels; at most {MAX_PIXELS} are read (8192 x 8192)"
        )


def which_frame(count: int, reading: Reading) -> int:
    """Number of the frame to take of `count`; -1 stands for the maximum over all."""
    if reading.slice_index >= count:
        raise DataError(f"slice {reading.slice_index} is asked of a file with {count} frames")
    if reading.slice_index >= 0:
        return reading.slice_index
    if count == 1:
        return 0
    if reading.frames == "refuse":
        raise DataError(
            f"it has {count} frames (tomosynthesis, a volume?) where one is expected; "
            "give --frames central or maximum"
        )
    return count // 2 if reading.frames == "central" else -1


def linear_table(kind: np.dtype[Any], low: float, high: float) -> Values:
    """Grey of every value that integers of `kind` can hold, from `low` (0) to `high` (1)."""
    unsigned = np.dtype(f"u{kind.itemsize}")
    every = np.arange(np.iinfo(unsigned).max + 1, dtype=unsigned).view(kind)
    scaled = (every.astype(np.float64) - low) / (high - low)
    return np.clip(scaled, 0.0, 1.0).astype(np.float32)
