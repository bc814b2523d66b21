"""Write a picture as a 12-bit DICOM mammogram, For Presentation, in either polarity."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mammo.errors import DataError

BITS = 12
_TOP = 2**BITS - 1
_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"  # Digital Mammography X-Ray Image Storage
_VIEW_CODES = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}
# Patient direction of rows and columns: the chest wall lies left for L and right for R.
_ORIENTATION = {
    ("L", "CC"): ["A", "R"],
    ("R", "CC"): ["P", "L"],
    ("L", "MLO"): ["A", "FR"],
    ("R", "MLO"): ["P", "FL"],
}


@dataclass(frozen=True)
class Header:
    """What the file says about its picture."""

    patient: str
    image: str  # names the picture in the release; the instance's UID follows from it
    release: str  # tells releases apart in the UIDs
    laterality: str
    view: str
    age: int  # years
    vendor: str
    inverted: bool  # MONOCHROME1: the largest stored value is black
    window: tuple[int, int]  # stored values of black and white in MONOCHROME2
    pixel_mm: float


def write_mammogram(path: Path, picture: np.ndarray[Any, Any], header: Header) -> None:
    """Write `picture` (H, W) in [0, 1] to `path`; refuses values that would be clipped.

    The window maps the stored values back to `picture` in either polarity: DICOM's LINEAR function
    (PS3.3 C.11.2.1.2.1) is symmetric about its centre minus a half, so a centre c becomes
    2^bits - c when the values are inverted.
    """
    from pydicom.dataset import FileDataset

    black, white = header.window
    low, high = float(picture.min()), float(picture.max())
    if not (low >= 0 and high <= 1):
        raise DataError(f"picture {header.image}: values from {low} to {high}, [0, 1] needed")
    stored = np.rint(black + picture * (white - black)).astype(np.uint16)
    centre = (black + white + 1) / 2
    if header.inverted:
        stored, centre = _TOP - stored, _TOP + 1 - centre

    file = FileDataset(str(path), {}, file_meta=_file_meta(header), preamble=b"\0" * 128)
    _identify(file, header)
    _describe(file, header)
    file.WindowCenter, file.WindowWidth = f"{centre:g}", str(white - black + 1)
    file.VOILUTFunction = "LINEAR"
    file.Rows, file.Columns = stored.shape
    file.PixelData = stored.astype("<u2").tobytes()
    file.save_as(path, enforce_file_format=True)


def _uid(*parts: str) -> str:
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=["mammo phantom", *parts]))


def _file_meta(header: Header) -> Any:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _FOR_PRESENTATION
    meta.MediaStorageSOPInstanceUID = _uid(header.release, header.image)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def _identify(file: Any, header: Header) -> None:
    """Patient, study, series, equipment and instance."""
    file.SOPClassUID = _FOR_PRESENTATION
    file.SOPInstanceUID = _uid(header.release, header.image)
    file.StudyInstanceUID = _uid(header.release, header.patient, "study")
    file.SeriesInstanceUID = _uid(header.release, header.image, "series")
    file.PatientName, file.PatientID = f"{header.patient}^Phantom", header.patient
    file.PatientSex, file.PatientAge, file.PatientBirthDate = "F", f"{header.age:03d}Y", ""
    file.StudyDate = file.StudyTime = file.AccessionNumber = file.ReferringPhysicianName = ""
    file.StudyID, file.SeriesNumber, file.InstanceNumber = "1", "1", "1"
    file.Manufacturer, file.ManufacturerModelName = header.vendor, "procedural"
    file.Modality, file.PresentationIntentType = "MG", "FOR PRESENTATION"
    file.ImageType = ["DERIVED", "PRIMARY"]
    file.BurnedInAnnotation, file.LossyImageCompression = "NO", "00"


def _describe(file: Any, header: Header) -> None:
    """Acquisition geometry and the meaning of the pixel values."""
    from pydicom.sequence import Sequence

    spacing = f"{header.pixel_mm:.8g}"
    file.ImageLaterality, file.ViewPosition = header.laterality, header.view
    file.PatientOrientation = _ORIENTATION[header.laterality, header.view]
    file.BodyPartExamined, file.OrganExposed, file.BreastImplantPresent = "BREAST", "BREAST", "NO"
    file.ImagerPixelSpacing = file.PixelSpacing = [spacing, spacing]
    view = _code(*_VIEW_CODES[header.view])
    view.ViewModifierCodeSequence = Sequence([])
    file.ViewCodeSequence = Sequence([view])
    file.AnatomicRegionSequence = Sequence([_code("76752008", "Breast")])
    file.AcquisitionContextSequence = Sequence([])
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, BITS, BITS - 1
    file.PhotometricInterpretation = "MONOCHROME1" if header.inverted else "MONOCHROME2"
    file.PresentationLUTShape = "INVERSE" if header.inverted else "IDENTITY"
    file.PixelIntensityRelationship = "LOG"
    file.PixelIntensityRelationshipSign = 1 if header.inverted else -1
    file.RescaleIntercept, file.RescaleSlope, file.RescaleType = "0", "1", "US"


def _code(value: str, meaning: str) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item
