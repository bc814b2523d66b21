"""Decodes one frame of a DICOM file, each transfer syntax with the decoder that is sound and fast.

Broken streams are told by `codestreams` first. Of the decoders at hand gdcm, and dicomsdl on
streams that are not checked, write beyond their memory on such streams, which ends the process;
gdcm is not used at all. dicomsdl reads JPEG lossless and JPEG-LS two to three times as fast and
is the only one to read JPEG of 12 bits.
"""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.data.codestreams import Expected, check_jpeg, check_jpeg2000
from mammo.errors import DataError

# Transfer syntax -> kind of stream (PS3.5 annex A.4)
_BASELINE = "1.2.840.10008.1.2.4.50"
_JPEG = {
    _BASELINE: "baseline",
    "1.2.840.10008.1.2.4.51": "extended",  # processes 2 and 4
    "1.2.840.10008.1.2.4.57": "lossless",  # process 14
    "1.2.840.10008.1.2.4.70": "lossless",  # process 14, first-order prediction
    "1.2.840.10008.1.2.4.80": "ls",
    "1.2.840.10008.1.2.4.81": "ls",  # near-lossless
}
_JPEG2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
_RLE = "1.2.840.10008.1.2.5"


def decode_frame(data: Any, index: int, count: int) -> NDArray[Any]:
    """Stored values (H, W) of frame `index` of `count`, contiguous and in the machine's order."""
    from pydicom.pixels import pixel_array

    syntax = data.file_meta.get("TransferSyntaxUID") if "file_meta" in vars(data) else None
    if syntax is None:
        raise DataError("its header names no transfer syntax")
    # pydicom counts frames from 0 where there are several, and takes none else
    at = index if count > 1 else None
    if not syntax.is_encapsulated:
        _require_length(data, count)
        swapped = not syntax.is_little_endian  # 8 bits in words of 16 then, which pydicom knows
        stored = pixel_array(data, index=at) if swapped else _raw_frame(data, index)
    elif syntax == _RLE:
        stored = pixel_array(data, index=at, decoding_plugin="pydicom")
    elif syntax in _JPEG2000:
        check_jpeg2000(_frame(data, index, count), _expected(data))
        stored = pixel_array(data, index=at, decoding_plugin="pylibjpeg")
    elif syntax in _JPEG:
        stream = _frame(data, index, count)
        check_jpeg(stream, _JPEG[syntax], _expected(data))
        if syntax == _BASELINE:
            stored = pixel_array(data, index=at, decoding_plugin="pillow")
        else:
            stored = _without_unused_bits(_decode_with_dicomsdl(data, stream), data)
    else:
        raise DataError("its transfer syntax has no decoder here; save it as JPEG lossless, or raw")
    if stored.shape != (int(data.Rows), int(data.Columns)):
        raise DataError(f"it has shape {stored.shape}; one grey frame is expected")
    return np.ascontiguousarray(stored, stored.dtype.newbyteorder("="))


def _require_length(data: Any, count: int) -> None:
    expected = count * int(data.Rows) * int(data.Columns) * int(data.BitsAllocated) // 8
    if len(data.PixelData) < expected:
        raise DataError(
            f"the DICOM file is truncated: {len(data.PixelData)} of {expected} bytes of pixels"
        )


def _raw_frame(data: Any, index: int) -> NDArray[Any]:
    """Frame `index` as it lies in the file, without a copy."""
    shape = int(data.Rows), int(data.Columns)
    kind = np.dtype(f"<u{int(data.BitsAllocated) // 8}")
    pixels = shape[0] * shape[1]
    stored = np.frombuffer(data.PixelData, kind, pixels, index * pixels * kind.itemsize)
    return _without_unused_bits(stored.reshape(shape), data)


def _frame(data: Any, index: int, count: int) -> bytes:
    """The compressed stream of one frame, put together from its fragments."""
    from pydicom.encaps import get_frame

    return bytes(get_frame(data.PixelData, index, number_of_frames=count))


def _expected(data: Any) -> Expected:
    return Expected(int(data.Rows), int(data.Columns), int(data.BitsAllocated))


def _decode_with_dicomsdl(data: Any, stream: bytes) -> NDArray[Any]:
    """Decode `stream` as the only frame of a file with nothing else in it."""
    import dicomsdl

    dicomsdl.set_loglevel(dicomsdl.LogLevel.DISABLE)  # it writes to stderr what it also raises
    kind = np.dtype(f"u{int(data.BitsAllocated) // 8}")
    decoded = np.empty((int(data.Rows), int(data.Columns)), kind)
    try:
        dicomsdl.open_memory(_bare_file(data, stream)).copyFrameData(0, decoded)
    except (dicomsdl.DicomException, RuntimeError, ValueError, TypeError, OSError) as error:
        reason = type(error).__name__
        raise DataError(f"its pixels cannot be decoded ({reason}); truncated or broken") from None
    return decoded


def _bare_file(data: Any, stream: bytes) -> bytes:
    """A DICOM file of `stream` and the attributes without which it cannot be read."""
    from pydicom.dataset import Dataset, FileMetaDataset

    bare = Dataset()
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    bare.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"  # a picture, no more
    bare.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
        setattr(bare, name, int(data.get(name, 0)))
    bare.SamplesPerPixel, bare.PixelRepresentation = 1, 0
    bare.PhotometricInterpretation = "MONOCHROME2"
    file = BytesIO()
    bare.save_as(file, enforce_file_format=True)
    # PixelData of undefined length: an empty offset table, one fragment, the end (PS3.5 A.4)
    start = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0" + bytes(4)
    odd = len(stream) % 2
    fragment = b"\xfe\xff\x00\xe0" + (len(stream) + odd).to_bytes(4, "little")
    end = bytes(odd) + b"\xfe\xff\xdd\xe0" + bytes(4)
    return b"".join((file.getvalue(), start, fragment, stream, end))


def _without_unused_bits(stored: NDArray[Any], data: Any) -> NDArray[Any]:
    """`stored` unsigned container values with the bits above BitsStored emptied, or of the sign."""
    unused = int(data.BitsAllocated) - int(data.BitsStored)
    kind = "i" if int(data.get("PixelRepresentation", 0)) == 1 else "u"
    numbers = stored.view(f"{kind}{stored.dtype.itemsize}")
    top = (1 << int(data.BitsStored)) - 1
    if not unused or (kind == "u" and stored.max(initial=0) <= top):
        return numbers
    return (numbers << unused) >> unused
