"""Reads NIfTI files: an image of two dimensions, or a slice of a volume.

Arrays are taken as they are stored, the first axis as rows and the second as columns, without
regard to the affine: that is how such files of mammograms are written, with an identity affine.
"""

import logging
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.data.picture import Header, Picture, Reading, linear_table, require_size, which_frame
from mammo.data.provenance import KIND
from mammo.errors import DataError

_MOST = 1 << 30  # values of a volume that is read whole


def read_slice(path: Path, reading: Reading) -> Picture:
    """The image, or the slice along the last axis that `reading` names, with its grey scale.

    Integers run from 0 to the greatest of their type, floats from 0 to 1 (or by `percentile` and
    `fixed`), after slope and intercept.
    """
    with _open(path) as image:
        shape = _shape(image)
        require_size(*shape[:2])
        stored = _frame(image, shape, reading)
        kind = image.get_data_dtype()
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        header = Header(synthetic=any(KIND in each for each in _comments(image)))
    return replace(_picture(stored, kind, slope, intercept, reading), header=header)


def _picture(
    stored: NDArray[Any], kind: Any, slope: float, intercept: float, reading: Reading
) -> Picture:
    """A slice with its grey scale; `kind` is the type that the file stores."""
    if stored.dtype.kind == "u" and stored.dtype.itemsize <= 2:
        return _of_bytes(stored, reading)
    bits = 8 if kind.itemsize == 1 else 16
    top = np.iinfo(kind).max if kind.kind in "iu" and kind.itemsize <= 2 else 0
    low, high = sorted((intercept, top * slope + intercept))
    # signed integers without a negative one among them are stored so for want of another type
    known = top > 0 and (kind.kind == "u" or low <= stored.min() <= stored.max() <= high)
    values = stored.astype(np.float64)
    return _of_numbers(values, bits, (low, high) if known else None, reading)


def read_numbers(path: Path, reading: Reading) -> NDArray[Any]:
    """The numbers (H, W) of the slice that `reading` names, after slope and intercept."""
    with _open(path) as image:
        shape = _shape(image)
        require_size(*shape[:2])
        numbers = _frame(image, shape, reading)
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise DataError("it holds NaN or infinite values")
    return numbers


def volume_shape(path: Path) -> tuple[int, int, int]:
    """Height, width and number of slices, from the header alone."""
    with _open(path) as image:
        return _shape(image)


def read_volume(path: Path) -> NDArray[Any]:
    """All values of a volume (H, W, slices), after slope and intercept."""
    with _open(path) as image:
        shape = _shape(image)
        if math.prod(shape) > _MOST:
            raise DataError(f"it is a volume of {shape} values; at most {_MOST} are read")
        values: NDArray[Any] = np.reshape(image.dataobj, shape)
        return values


def bits_of_volume(path: Path) -> int:
    """8 bits a pixel for bytes, else 16."""
    with _open(path) as image:
        return 8 if image.get_data_dtype().itemsize == 1 else 16


def comments_of(path: Path) -> list[str]:
    """The header extensions of NIfTI that are comments (NIfTI-1, ecode 6)."""
    with _open(path) as image:
        return _comments(image)


def _comments(image: Any) -> list[str]:
    found = getattr(image.header, "extensions", [])
    contents = [each.content for each in found if each.get_code() == 6]
    return [bytes(each).rstrip(b"\0").decode("utf-8", "replace") for each in contents]


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """The nibabel image of `path`; what it raises while in use becomes a DataError."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError, SpatialImage

    log = logging.getLogger("nibabel.global")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)  # it quotes header values
    try:
        image = nibabel.load(path)
        if not isinstance(image, SpatialImage):
            raise DataError("it is no NIfTI image")
        yield image
    except DataError:
        raise
    except (EOFError, zlib.error) as error:
        raise DataError(f"the NIfTI file is truncated ({type(error).__name__})") from None
    except (ImageFileError, HeaderDataError, OSError, ValueError, TypeError, KeyError,
            IndexError, OverflowError, RuntimeError) as error:  # fmt: skip
        raise DataError(f"the NIfTI file is broken ({type(error).__name__})") from None
    finally:
        log.setLevel(level)


def _shape(image: Any) -> tuple[int, int, int]:
    sizes = [int(size) for size in image.shape]
    if len(sizes) < 2 or any(size > 1 for size in sizes[3:]):
        raise DataError(f"its array has the shape {tuple(sizes)}; (H, W) or (H, W, slices) is read")
    return sizes[0], sizes[1], sizes[2] if len(sizes) > 2 else 1


def _frame(image: Any, shape: tuple[int, int, int], reading: Reading) -> NDArray[Any]:
    """Values of one slice (H, W) after slope and intercept; integers where those change nothing."""
    if image.get_data_dtype().kind not in "iuf":
        raise DataError("it holds neither integers nor floats")
    at = which_frame(shape[2], reading)
    if at < 0 and math.prod(shape) > _MOST:
        raise DataError(f"it is a volume of {shape} values; at most {_MOST} are read")
    if at < 0:
        found = np.reshape(image.dataobj, shape).max(axis=2)
    elif image.ndim < 3:
        found = np.asanyarray(image.dataobj)
    else:
        found = np.reshape(image.dataobj[:, :, at], shape[:2])
    return np.ascontiguousarray(found, found.dtype.newbyteorder("="))


def _of_bytes(stored: NDArray[Any], reading: Reading) -> Picture:
    """A picture of unsigned integers of 8 or 16 bits, in units of the file."""
    low, high = reading.fixed_range or (0.0, float(np.iinfo(stored.dtype).max))
    greys = linear_table(stored.dtype, low, high)
    return Picture(stored, greys, 8 * stored.dtype.itemsize, low, high)


def _of_numbers(
    values: NDArray[np.float64], bits: int, full: tuple[float, float] | None, reading: Reading
) -> Picture:
    """A picture of any other numbers; `full` is the range of their type, where it has one."""
    if not np.isfinite(values).all():
        raise DataError("it holds NaN or infinite values")
    least, most = float(values.min()), float(values.max())
    if reading.fixed_range:
        low, high = reading.fixed_range
    elif reading.intensity == "percentile":
        low, high = least, max(most, least + 1e-6)
    elif full:
        low, high = full
    elif least >= 0 and most <= 1:
        low, high = 0.0, 1.0
    else:
        raise DataError(
            "it holds floats outside 0 to 1 or negative integers, whose range is unknown; "
            "give --intensity percentile or fixed"
        )
    grey = np.clip((values - low) / (high - low), 0.0, 1.0).astype(np.float32)
    return Picture(grey, None, bits, low, high)
