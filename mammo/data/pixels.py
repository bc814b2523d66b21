"""Reads an image file of any kind into one scale: float32 in [0, 1], bright tissue on dark air."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mammo.errors import DataError

INTENSITIES = ("header", "percentile", "none")
PERCENTILES = (0.5, 99.5)  # of the breast's pixels, mapped to 0 and 1 by intensity "percentile"

Values = NDArray[np.float32]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Header:
    """What a DICOM header tells of the picture; empty where it tells nothing."""

    laterality: str = ""  # L or R
    view: str = ""  # CC or MLO
    wall: str = ""  # side of the chest wall by PatientOrientation: left, right or empty
    vendor: str = ""
    age: float = float("nan")  # years
    pixel_mm: float = float("nan")


@dataclass(frozen=True)
class Picture:
    """One decoded channel: `values` (H, W) in [0, 1] and the bits that its file stores."""

    values: Values
    bits: int
    header: Header = field(default_factory=Header)


def read_pixels(path: Path, *, intensity: str = "header") -> Picture:
    """Decode `path`; DataError says why it cannot be used (without its name, which may identify).

    The scale is fixed by the file's depth, never by the picture's own minimum and maximum.
    `header` applies modality and VOI transforms of a DICOM file and divides by their output
    range (no VOI: the full range of BitsStored). `none` and `percentile` leave the VOI out; the
    latter is stretched by `stretch` once the breast is known. MONOCHROME1 is inverted always.
    """
    if intensity not in INTENSITIES:
        raise DataError(f"intensity {intensity!r} is not one of {', '.join(INTENSITIES)}")
    return _read_dicom(path, intensity) if is_dicom(path) else _read_picture(path)


def stretch(values: Values, breast: Values) -> Values:
    """Map the percentiles of `breast` (any shape) to 0 and 1 in `values`, clipped."""
    low, high = np.percentile(breast, PERCENTILES)
    scaled = (values - np.float32(low)) / np.float32(max(high - low, 1e-6))
    return np.clip(scaled, 0.0, 1.0, out=scaled)


def bits_of(path: Path) -> int:
    """Bits that a pixel of `path` is stored with, from its header alone; 8 for colour."""
    if is_dicom(path):
        return int(read_header(path, ["BitsStored"]).get("BitsStored", 16))
    mode = str(_with_image(path, lambda image: image.mode))
    return 16 if mode.startswith(("I", "F")) else 8


def is_dicom(path: Path) -> bool:
    """Whether the file has DICOM's magic or, lacking it, DICOM's suffix."""
    try:
        with path.open("rb") as file:
            magic = file.read(132)[128:]
    except OSError as error:
        raise DataError(f"the file cannot be opened ({error.strerror})") from None
    return magic == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def read_header(path: Path, tags: list[str] | None = None) -> Any:
    """The pydicom data set of a DICOM file without its pixels; DataError when it has none."""
    return _parse(path, stop_before_pixels=True, specific_tags=tags)


def _parse(path: Path, **settings: Any) -> Any:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        with _quiet():
            return pydicom.dcmread(path, **settings)
    except InvalidDicomError:
        raise DataError("not a DICOM file, or cut off within its first 132 bytes") from None
    except (OSError, EOFError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"the file cannot be read ({error.strerror})") from None
        raise DataError("the DICOM file is truncated: it ends within its header") from None
    except _BROKEN as error:
        raise DataError(f"the DICOM header is broken ({type(error).__name__})") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence pydicom, whose warnings and log lines quote file names and header values."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


# What pydicom and its decoders raise on files that break the standard
_BROKEN = (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, EOFError)


def _read_dicom(path: Path, intensity: str) -> Picture:
    data = _parse(path)
    _require_usable(data)
    try:
        with _quiet():
            stored = data.pixel_array
            lookup = _grey_lookup(data, stored.dtype, with_voi=intensity == "header")
    except _BROKEN as error:
        raise DataError(_decoding_failure(data, error)) from None
    except NotImplementedError:
        name = data.file_meta.TransferSyntaxUID.name
        raise DataError(f"its transfer syntax {name} has no decoder here") from None
    if stored.ndim != 2:
        raise DataError(f"it has shape {stored.shape}; one grey frame is expected")
    unsigned = stored.view(f"u{stored.dtype.itemsize}")
    return Picture(lookup[unsigned], int(data.BitsStored), _header(data))


def _require_usable(data: Any) -> None:
    if "PixelData" not in data:
        raise DataError("the DICOM file is truncated or has no pixels: PixelData is missing")
    if str(data.get("PresentationIntentType", "")).upper() == "FOR PROCESSING":
        raise DataError(
            "it is FOR PROCESSING (raw detector values); export the FOR PRESENTATION image"
        )
    if int(data.get("NumberOfFrames") or 1) > 1:
        raise DataError(f"it has {data.NumberOfFrames} frames (tomosynthesis?); one is expected")
    if str(data.get("PhotometricInterpretation", "")) not in ("MONOCHROME1", "MONOCHROME2"):
        found = data.get("PhotometricInterpretation", "missing")
        raise DataError(f"PhotometricInterpretation is {found}; MONOCHROME1 or 2 is expected")
    if int(data.get("BitsAllocated", 0)) not in (8, 16):
        raise DataError(f"BitsAllocated is {data.get('BitsAllocated')}; 8 or 16 is expected")


def _decoding_failure(data: Any, error: Exception) -> str:
    expected = int(data.Rows) * int(data.Columns) * int(data.BitsAllocated) // 8
    syntax = data.file_meta.get("TransferSyntaxUID")
    if syntax is not None and not syntax.is_compressed and len(data.PixelData) < expected:
        return f"the DICOM file is truncated: {len(data.PixelData)} of {expected} bytes of pixels"
    return f"its pixels cannot be decoded ({type(error).__name__}); truncated or broken"


def _grey_lookup(data: Any, kind: np.dtype[Any], *, with_voi: bool) -> Values:
    """Grey in [0, 1] for every value the stored type can hold, in the order of its bits.

    Modality, VOI and polarity act on each pixel alone, so 65536 values stand for any picture.
    """
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    every = np.arange(1 << (8 * kind.itemsize), dtype=f"u{kind.itemsize}").view(kind)
    grey = apply_modality_lut(every, data)
    low, high = _modality_range(data)
    if with_voi and _has(data, "VOILUTSequence"):
        low, high = 0.0, float((1 << int(data.VOILUTSequence[0].LUTDescriptor[2])) - 1)
        whole = np.rint(grey).astype(np.int64)  # a table is indexed by whole numbers
        grey = apply_voi_lut(whole, data, index=0, prefer_lut=True)
    elif with_voi and _has(data, "WindowCenter") and _has(data, "WindowWidth"):
        grey = apply_voi_lut(grey, data, index=0, prefer_lut=True)
    elif low > high:  # a falling slope without a window: brighter is still greater
        low, high = high, low
    scaled = np.clip((grey.astype(np.float64) - low) / (high - low), 0.0, 1.0)
    if data.PhotometricInterpretation == "MONOCHROME1":
        scaled = 1.0 - scaled
    return np.asarray(scaled, np.float32)


def _modality_range(data: Any) -> tuple[float, float]:
    """Ends of the range after the modality transform, as pydicom's windowing takes them."""
    if _has(data, "ModalityLUTSequence"):
        return 0.0, float((1 << int(data.ModalityLUTSequence[0].LUTDescriptor[2])) - 1)
    bits = int(data.BitsStored)
    low, high = (
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if _signed(data) else (0, (1 << bits) - 1)
    )
    if _has(data, "RescaleSlope") and _has(data, "RescaleIntercept"):
        slope, intercept = float(data.RescaleSlope), float(data.RescaleIntercept)
        return low * slope + intercept, high * slope + intercept
    return float(low), float(high)


def _signed(data: Any) -> bool:
    return int(data.get("PixelRepresentation", 0)) == 1


def _has(data: Any, name: str) -> bool:
    value = data.get(name)
    return value is not None and value != "" and (not hasattr(value, "__len__") or len(value) > 0)


def _header(data: Any) -> Header:
    side = str(data.get("ImageLaterality") or data.get("Laterality") or "").upper()
    view = str(data.get("ViewPosition") or "").upper()
    return Header(
        laterality=side if side in ("L", "R") else "",
        view=view if view in ("CC", "MLO") else "",
        wall=_wall(data.get("PatientOrientation")),
        vendor=str(data.get("Manufacturer") or ""),
        age=_years(str(data.get("PatientAge") or "")),
        pixel_mm=_spacing(data),
    )


def _wall(orientation: Any) -> str:
    """Side of the chest wall: rows that run towards the patient's front (A) start at the wall."""
    rows = str(orientation[0]) if orientation and not isinstance(orientation, str) else ""
    return {"A": "left", "P": "right"}.get(rows[:1], "")


def _years(text: str) -> float:
    return float(text[:3]) if text[:3].isdigit() and text.endswith("Y") else math.nan


def _spacing(data: Any) -> float:
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        if _has(data, name):
            return float(data.get(name)[1])
    return math.nan


def _read_picture(path: Path) -> Picture:
    def decode(image: Any) -> Picture:
        if image.mode == "F":
            raise DataError("it holds floating-point pixels, whose range is unknown; save 16 bits")
        if image.mode.startswith("I"):
            values = np.asarray(image)
            if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
                raise DataError("it holds pixels outside 0 to 65535; save 16 bits")
            return Picture(values.astype(np.float32) / np.float32(65535), 16)
        grey = np.asarray(image if image.mode == "L" else image.convert("L"))
        return Picture(grey.astype(np.float32) / np.float32(255), 8)

    return _with_image(path, decode)


def _with_image(path: Path, use: Callable[[Any], Found]) -> Found:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return use(image)
    except UnidentifiedImageError:
        raise DataError("it is no image that can be read, or its start is broken") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "truncated" if "truncated" in str(error) else "broken"
        raise DataError(f"the image file is {reason}") from None
