"""DICOM mammograms made for a test, header and pixels as the test says."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def write_dicom(path: Path, pixels: Any, *, bits: int = 12, **tags: Any) -> Path:
    """Write `pixels` (H, W) of any integers as a mammogram; `tags` are set by their keyword."""
    kind = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    signed = np.min(pixels) < 0
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


def half_breast(
    shape: tuple[int, int] = (96, 72), *, wall: str = "left", level: int = 2000
) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """A half ellipse of grey `level` with its flat side at `wall`, on black; uint16."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    height, width = 0.4 * shape[0], 0.6 * shape[1]
    inside = ((rows - shape[0] / 2) / height) ** 2 + (columns / width) ** 2 <= 1
    picture = np.where(inside, level, 0).astype(np.uint16)
    return picture if wall == "left" else picture[:, ::-1]
