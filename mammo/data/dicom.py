"""Reads a DICOM file: its header, the frame that is wanted, and the grey scale it prescribes."""

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.data.headers import header_of
from mammo.data.picture import Omitted, Picture, Reading, require_size, which_frame
from mammo.errors import DataError

# What pydicom and its decoders raise on files that break the standard
_BROKEN = (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, EOFError,
           ArithmeticError, NotImplementedError, struct.error, zlib.error, MemoryError,
           RecursionError)  # fmt: skip
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_MOST_UNPACKED = 1 << 30  # bytes of a deflated file; a mammogram has 0.1 GB at most
_PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2")
_COLORS = (
    "PALETTE COLOR",
    "RGB",
    "YBR_FULL",
    "YBR_FULL_422",
    "YBR_ICT",
    "YBR_RCT",
    "YBR_PARTIAL_420",
)
# Macros of multi-frame files (PS3.3 C.7.6.16.2) whose content single frames have at their root
_MACROS = ("FrameVOILUTSequence", "PixelValueTransformationSequence", "PixelMeasuresSequence",
           "FrameAnatomySequence")  # fmt: skip


def read_dicom(path: Path, reading: Reading) -> Picture:
    """Decode the frame of `path` that `reading` asks for, with its grey scale and header."""
    from mammo.data.decoders import decode_frame
    from mammo.data.greys import grey_scale

    data = parse(path)
    with _refusing("its pixels cannot be decoded; truncated or broken"):
        hits = sorted(reading.exclude.intersection(header_of(data).flags))
        if hits:  # before any fault: what is not asked for need not be sound
            raise Omitted(hits[0])
        raw = _require_usable(data, reading)
        count = int(data.get("NumberOfFrames") or 1)
        at = which_frame(count, reading)
        _flatten(data, max(at, 0))
        header = header_of(data)
        if at >= 0:
            stored = decode_frame(data, at, count)
        else:
            frames = (decode_frame(data, number, count) for number in range(count))
            stored = _brightest(frames, data.PhotometricInterpretation == "MONOCHROME1")
    with _refusing("its modality or VOI transform breaks the standard"):
        greys, low, high = grey_scale(data, stored, reading, raw=raw)
    return Picture(stored, greys, int(data.BitsStored), low, high, header)


def bits_of_dicom(path: Path) -> int:
    """BitsStored of the header."""
    header = parse(path, stop_before_pixels=True, specific_tags=["BitsStored"])
    with _refusing("its BitsStored is no number"):
        return int(header.get("BitsStored", 16))


def parse(path: Path, **settings: Any) -> Any:
    """The pydicom data set of `path`; DataError when it has none."""
    import pydicom
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        _refuse_bomb(path)
        with _quiet():
            data = pydicom.dcmread(path, **settings)
            if settings:  # a header alone: no value of it may fail later
                for element in data:
                    del element
            return data
    except InvalidDicomError:
        raise DataError("not a DICOM file, or cut off within its first 132 bytes") from None
    except (OSError, EOFError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"the file cannot be read ({error.strerror})") from None
        raise DataError("the DICOM file is truncated: it ends within its header") from None
    except zlib.error:
        raise DataError("the deflated DICOM file is truncated or broken") from None
    except (*_BROKEN, BytesLengthException) as error:
        raise DataError(f"the DICOM header is broken ({type(error).__name__})") from None


def _refuse_bomb(path: Path) -> None:
    """Refuse a deflated file that fills the memory: pydicom unpacks the whole of it at once."""
    with path.open("rb") as file:
        head = file.read(1024)
        place = head.find(_DEFLATED)
        if place < 0:
            return
        group = int.from_bytes(head[140:144], "little")  # length of the meta group, which is first
        file.seek(144 + group)
        unpacker, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        packed = file.read(1 << 20)
        while packed and size <= _MOST_UNPACKED:
            size += len(unpacker.decompress(packed, 1 << 24))
            packed = unpacker.unconsumed_tail or file.read(1 << 20)
    if size > _MOST_UNPACKED:
        raise DataError(f"the deflated DICOM file unpacks to more than {_MOST_UNPACKED >> 20} MiB")


@contextmanager
def _refusing(reason: str) -> Iterator[None]:
    """Turn what a broken file raises into a DataError with `reason`, in silence."""
    from pydicom.errors import BytesLengthException

    try:
        with _quiet():
            yield
    except DataError:
        raise
    except (*_BROKEN, BytesLengthException) as error:
        raise DataError(f"{reason} ({type(error).__name__})") from None


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


def _require_usable(data: Any, reading: Reading) -> bool:
    """Refuse what is no grey picture; returns whether the values are the detector's own."""
    if "PixelData" not in data:
        raise DataError("the DICOM file is truncated or has no pixels: PixelData is missing")
    found = str(data.get("PhotometricInterpretation", "missing"))
    if found not in _PHOTOMETRIC:
        named = found if found in (*_COLORS, "missing") else "unknown"
        raise DataError(f"PhotometricInterpretation is {named}; MONOCHROME1 or 2 is expected")
    if int(data.get("SamplesPerPixel", 1)) != 1:
        raise DataError("it has several samples a pixel; one grey one is expected")
    if int(data.get("BitsAllocated", 0)) not in (8, 16):
        raise DataError("BitsAllocated is neither 8 nor 16; its pixels cannot be read")
    if not 1 <= int(data.get("BitsStored", 0)) <= int(data.BitsAllocated):
        raise DataError("BitsStored is beyond BitsAllocated; the header is broken")
    if int(data.get("PixelRepresentation", 0)) not in (0, 1):
        raise DataError("PixelRepresentation is neither 0 nor 1; the header is broken")
    require_size(int(data.Rows), int(data.Columns))
    raw = str(data.get("PresentationIntentType", "")).upper() == "FOR PROCESSING"
    if raw and reading.for_processing == "refuse":
        raise DataError(
            "it is FOR PROCESSING (raw detector values); export the FOR PRESENTATION image, "
            "or give --for_processing log"
        )
    return raw


def _flatten(data: Any, frame: int) -> None:
    """Copy what the functional groups say of `frame` to the root, where it is not already."""
    groups = []
    shared = data.get("SharedFunctionalGroupsSequence")
    own = data.get("PerFrameFunctionalGroupsSequence")
    if shared:
        groups.append(shared[0])
    if own and frame < len(own):
        groups.append(own[frame])
    for group in groups:
        for name in _MACROS:
            for item in (group.get(name) or [])[:1]:
                for element in item:
                    if element.tag not in data:
                        data[element.tag] = element


def _brightest(frames: Iterator[NDArray[Any]], inverted: bool) -> NDArray[Any]:
    """The brightest value of every pixel over `frames`; the smallest where those are `inverted`."""
    found = next(frames).copy()
    for frame in frames:
        (np.minimum if inverted else np.maximum)(found, frame, out=found)
    return found
