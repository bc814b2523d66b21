"""DICOM mammograms made for a test, header and pixels as the test says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def write_dicom(
    path: Path, pixels: Any, *, bits: int = 12, signed: bool | None = None, **tags: Any
) -> Path:
    """Write `pixels` (H, W) of any integers as a mammogram; `tags` are set by their keyword.

    The values are signed if there are negative ones, unless `signed` says it.
    """
    kind = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    signed = bool(np.min(pixels) < 0) if signed is None else signed
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID
    data.Modality = "MG"
    data.PatientID = "nobody"
    data.Rows, data.Columns = np.shape(pixels)
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = 8 * kind.itemsize
    data.BitsStored, data.HighBit = bits, bits - 1
    data.PixelRepresentation = int(signed)
    data.PixelData = np.asarray(pixels).astype(f"i{kind.itemsize}" if signed else kind).tobytes()
    data["PixelData"].VR = "OB" if bits <= 8 else "OW"
    for name, value in tags.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


# Transfer syntaxes that an encoder at hand writes, by gdcm's name for it
ENCODED = {
    "implicit": "ImplicitVRLittleEndian",
    "explicit": "ExplicitVRLittleEndian",
    "big-endian": "ExplicitVRBigEndian",
    "deflated": "DeflatedExplicitVRLittleEndian",
    "rle": "RLELossless",
    "jpeg-lossless": "JPEGLosslessProcess14",
    "jpeg-lossless-sv1": "JPEGLosslessProcess14_1",
    "jpeg-ls": "JPEGLSLossless",
    "jpeg-2000": "JPEG2000Lossless",
    "jpeg-baseline": "JPEGBaselineProcess1",
}


def transcode(path: Path, syntax: str) -> Path:
    """Write the file `path` anew in `syntax`, a key of ENCODED."""
    gdcm = pytest.importorskip("gdcm", exc_type=ImportError)
    reader, change, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, ENCODED[syntax])))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()
    return path


def encode_lossless(pixels: Any, *, bits: int, predictor: int) -> bytes:
    """JPEG lossless stream of `pixels` (H, W) with one of the 7 predictors (ITU-T T.81 H.1.2)."""
    values = np.asarray(pixels).astype(int)
    height, width = values.shape
    left, above, corner = (np.roll(values, shift, (0, 1)) for shift in ((0, 1), (1, 0), (1, 1)))
    guess = (left, above, corner, left + above - corner, left + (above - corner >> 1),
             above + (left - corner >> 1), left + above >> 1)[predictor - 1].copy()  # fmt: skip
    guess[0], guess[1:, 0] = left[0], above[1:, 0]
    guess[0, 0] = 1 << (bits - 1)
    code = []
    for difference in ((values - guess).ravel() + 32768) % 65536 - 32768:
        size = int(abs(int(difference))).bit_length()
        extra = int(difference) if difference > 0 else int(difference) + (1 << size) - 1
        # every size has a code of 5 bits; that of 16 has no further ones
        code.append(f"{size:05b}" + (f"{extra:0{size}b}" if 0 < size < 16 else ""))
    text = "".join(code)
    text += "1" * (-len(text) % 8)
    coded = int(text, 2).to_bytes(len(text) // 8).replace(b"\xff", b"\xff\0")

    def segment(marker: int, content: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2) + content

    frame = bytes([bits]) + height.to_bytes(2) + width.to_bytes(2) + b"\x01\x01\x11\0"
    table = b"\0" + bytes([0, 0, 0, 0, 17]) + bytes(11) + bytes(range(17))
    scan = b"\x01\x01\0" + bytes([predictor, 0, 0])
    header = segment(0xC3, frame) + segment(0xC4, table) + segment(0xDA, scan)
    return b"\xff\xd8" + header + coded + b"\xff\xd9"


def half_breast(
    shape: tuple[int, int] = (96, 72), *, wall: str = "left", level: int = 2000
) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """A half ellipse of grey `level` with its flat side at `wall`, on black; uint16."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    height, width = 0.4 * shape[0], 0.6 * shape[1]
    inside = ((rows - shape[0] / 2) / height) ** 2 + (columns / width) ** 2 <= 1
    picture = np.where(inside, level, 0).astype(np.uint16)
    return picture if wall == "left" else picture[:, ::-1]
