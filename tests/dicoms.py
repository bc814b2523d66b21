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


def half_breast(
    shape: tuple[int, int] = (96, 72), *, wall: str = "left", level: int = 2000
) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """A half ellipse of grey `level` with its flat side at `wall`, on black; uint16."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    height, width = 0.4 * shape[0], 0.6 * shape[1]
    inside = ((rows - shape[0] / 2) / height) ** 2 + (columns / width) ** 2 <= 1
    picture = np.where(inside, level, 0).astype(np.uint16)
    return picture if wall == "left" else picture[:, ::-1]
