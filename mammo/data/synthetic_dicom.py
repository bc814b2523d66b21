"""Writes a synthetic image as DICOM that says so by every standard means, and reads its record.

Secondary Capture, not Digital Mammography: the latter requires the X-ray equipment, dose and
detector of an acquisition that never was, while Secondary Capture's ConversionType has the term SYN
for exactly this (PS3.3 C.8.6.1). Beside it SyntheticData YES (SOP Common, C.12.1), ImageType
DERIVED, SECONDARY, SYNTHETIC (C.7.6.1.1.2), DerivationDescription and ContributingEquipment.
Modality is OT, so that no archive hangs, counts or reports it as a mammogram.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo import __version__
from mammo.data.provenance import STATEMENT, as_text

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
GROUP, CREATOR, ELEMENT = 0x0099, "MAMMO PROVENANCE", 0x01
IMAGE_TYPE = ["DERIVED", "SECONDARY", "SYNTHETIC"]


def write_synthetic(path: Path, pixels: NDArray[Any], record: Mapping[str, Any]) -> None:
    """Write `pixels` (H, W), uint8 or uint16, to `path`; the same record gives the same bytes."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _SECONDARY_CAPTURE
    meta.MediaStorageSOPInstanceUID = _uid(record, "instance", *record["planes"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    _identify(file, record)
    _declare(file, record)
    _picture(file, pixels)
    block = file.private_block(GROUP, CREATOR, create=True)
    block.add_new(ELEMENT, "UT", as_text(record))
    file.save_as(path, enforce_file_format=True)


def record_in(path: Path) -> tuple[str, bool, bool]:
    """The record of a DICOM file as text, empty for none; are its marks there, is it shown plainly.

    A file whose standard marks were taken away passes for a real image, whatever the private block
    says; one that inverts or rescales its pixels shows another image than was drawn.
    """
    from mammo.data.dicom import parse

    data = parse(path, stop_before_pixels=True)
    try:
        text = str(data.private_block(GROUP, CREATOR)[ELEMENT].value)
    except KeyError:
        text = ""
    plain = data.get("PhotometricInterpretation") == "MONOCHROME2"
    plain &= data.get("RescaleSlope") in (None, "", 1)
    plain &= data.get("RescaleIntercept") in (None, "", 0)
    return text, is_marked(data), plain


def is_marked(data: Any) -> bool:
    """Whether a pydicom data set says by standard means that it is synthetic."""
    kinds = {str(each) for each in data.get("ImageType") or ()}
    return data.get("SyntheticData") == "YES" and "SYNTHETIC" in kinds


def _identify(file: Any, record: Mapping[str, Any]) -> None:
    """A patient, study and series of its own, that can be taken for nobody's."""
    file.SOPClassUID = _SECONDARY_CAPTURE
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID
    file.StudyInstanceUID = _uid(record, "study")
    file.SeriesInstanceUID = _uid(record, "series")
    number = f"{record['dataset'][:12]}-{record['index']}"
    file.PatientName, file.PatientID = "SYNTHETIC", f"SYNTHETIC-{number}"
    file.PatientBirthDate = file.PatientSex = ""
    file.PatientComments = STATEMENT
    file.StudyDate = file.StudyTime = file.AccessionNumber = file.ReferringPhysicianName = ""
    file.StudyID, file.SeriesNumber, file.InstanceNumber = "1", "1", "1"
    file.StudyDescription = file.SeriesDescription = "Synthetic image"
    file.Modality, file.ConversionType = "OT", "SYN"
    file.Manufacturer, file.ManufacturerModelName = "mammo", "generator"
    file.SecondaryCaptureDeviceManufacturer = "mammo"
    file.SecondaryCaptureDeviceSoftwareVersions = __version__


def _declare(file: Any, record: Mapping[str, Any]) -> None:
    """That the image is synthetic, of what, and made by whom."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    run = record["generator_run_id"]
    file.ImageType = IMAGE_TYPE
    file.SyntheticData = "YES"
    file.DerivationDescription = (
        f"Synthetic image of class {record['label']} with seed {record['seed']}, drawn by the "
        f"generator of run {run}"
    )[:1024]  # the longest ST
    file.ImageComments = STATEMENT
    file.BurnedInAnnotation, file.LossyImageCompression = "NO", "00"
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109102", "DCM"  # PS3.16 CID 7005
    purpose.CodeMeaning = "Processing Equipment"
    maker = Dataset()
    maker.PurposeOfReferenceCodeSequence = Sequence([purpose])
    maker.Manufacturer, maker.ManufacturerModelName = "mammo", "generator"
    maker.SoftwareVersions = __version__
    maker.ContributionDescription = f"Drew the image: generator of run {run}"[:1024]
    file.ContributingEquipmentSequence = Sequence([maker])
    told = record["conditions"]
    file.Laterality = told.get("laterality", "")
    file.PatientOrientation = ""


def _picture(file: Any, pixels: NDArray[Any]) -> None:
    bits = 8 * pixels.dtype.itemsize
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.PhotometricInterpretation = "MONOCHROME2"
    file.Rows, file.Columns = pixels.shape
    file.BitsAllocated, file.BitsStored, file.HighBit = bits, bits, bits - 1
    data = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()
    file.add_new(0x7FE00010, "OW" if bits == 16 else "OB", data + b"\0" * (len(data) % 2))


def _uid(record: Mapping[str, Any], *parts: str) -> str:
    from pydicom.uid import generate_uid

    known = (record["dataset"], record["image_id"], record["image_sha256"])
    return str(generate_uid(entropy_srcs=["mammo synthetic", *known, *parts]))
