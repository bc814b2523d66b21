"""Reads PNG, TIFF, PGM and JPEG files of 8 or 16 bits."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mammo.data.picture import Header, Picture, Reading, linear_table, require_size
from mammo.data.provenance import KEYWORD
from mammo.errors import DataError

Found = TypeVar("Found")
_POLARITY, _WHITE_IS_ZERO = 262, 0  # PhotometricInterpretation of TIFF 6.0, section 8


def read_raster(path: Path, reading: Reading) -> Picture:
    """Decode `path`; colours become grey. 0 and the greatest value of the depth are its ends."""

    def decode(image: Any) -> Picture:
        require_size(image.height, image.width)
        if getattr(image, "n_frames", 1) > 1 and image.format == "TIFF":
            raise DataError(f"it has {image.n_frames} pages; save the one that is meant alone")
        if image.mode == "F":
            raise DataError("it holds floating-point pixels, whose range is unknown; save 16 bits")
        if image.mode.startswith("I"):
            stored = np.asarray(image)
            if stored.min(initial=0) < 0 or stored.max(initial=0) > 65535:
                raise DataError("it holds pixels outside 0 to 65535; save 16 bits")
            if image.format == "TIFF" and image.tag_v2.get(_POLARITY) == _WHITE_IS_ZERO:
                stored = 65535 - stored  # Pillow turns 8 bits alone
            picture = _picture(np.ascontiguousarray(stored, np.uint16), reading)
        else:
            grey = image if image.mode == "L" else image.convert("L")
            picture = _picture(np.asarray(grey), reading)
        return replace(picture, header=Header(synthetic=KEYWORD in image.info))

    return _with_image(path, decode)


def bits_of_raster(path: Path) -> int:
    """16 or 8 bits a pixel, from the header alone; 8 for colour."""
    mode = str(_with_image(path, lambda image: image.mode))
    return 16 if mode.startswith(("I", "F")) else 8


def texts_of(path: Path) -> dict[str, str]:
    """The text chunks of a PNG file, by keyword; none of another format."""

    def read(image: Any) -> dict[str, str]:
        if image.format != "PNG":
            return {}
        image.load()  # a chunk may stand behind the pixels
        return {str(name): str(text) for name, text in image.text.items()}

    return _with_image(path, read)


def _picture(stored: Any, reading: Reading) -> Picture:
    low, high = reading.fixed_range or (0.0, float(np.iinfo(stored.dtype).max))
    greys = linear_table(stored.dtype, low, high)
    return Picture(stored, greys, 8 * stored.dtype.itemsize, low, high)


def _with_image(path: Path, use: Callable[[Any], Found]) -> Found:
    import struct
    import zlib

    from PIL import Image, UnidentifiedImageError

    # what Pillow and its plug-ins raise on files that break their formats
    broken = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError,
              OverflowError, RuntimeError, Image.DecompressionBombError, struct.error,
              zlib.error)  # fmt: skip
    log = logging.getLogger("PIL")
    level = log.level
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes that are refused here, and of metadata that is not read
            warnings.simplefilter("ignore")
            log.setLevel(logging.CRITICAL + 1)  # what is wrong is told in one line, by us
            with Image.open(path) as image:
                return use(image)
    except UnidentifiedImageError:
        raise DataError("it is no image that can be read, or its start is broken") from None
    except Image.DecompressionBombError:
        raise DataError("it has more pixels than are read (8192 x 8192)") from None
    except broken as error:
        reason = "truncated" if "truncated" in str(error) else "broken"
        raise DataError(f"the image file is {reason}") from None
    finally:
        log.setLevel(level)
