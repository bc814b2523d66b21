"""What a DICOM header tells of a mammogram: side, view, chest wall, spacing, and its flags."""

import math
from typing import Any

from mammo.data.picture import Header

_MAGNIFIES = 1.3  # contact views have a factor of 1.0 to 1.1, magnification views of 1.5 or more
_VIEWS = {  # CID 4014, in SNOMED CT and in its older codes
    "399162004": "CC", "R-10242": "CC", "399368009": "MLO", "R-10226": "MLO",
}  # fmt: skip
_MODIFIERS = {  # CID 4015
    "399209000": "implant", "R-102D5": "implant", "399163009": "magnification",
    "R-102D6": "magnification", "399055006": "spot", "R-102D7": "spot",
}  # fmt: skip
_SPECIMEN = ("127457009", "G-8310")
_WORDS = (("implant", "implant"), ("magnif", "magnification"), ("spot", "spot"),
          ("specimen", "biopsy"), ("biopsy", "biopsy"), ("stereo", "biopsy"))  # fmt: skip


def header_of(data: Any) -> Header:
    """What the data set of a file tells of side, view, spacing, maker, age and faults."""
    side = str(
        data.get("ImageLaterality") or data.get("FrameLaterality") or data.get("Laterality") or ""
    ).upper()
    return Header(
        laterality=side if side in ("L", "R") else "",
        view=_view(data),
        wall=_wall(data.get("PatientOrientation")),
        vendor=str(data.get("Manufacturer") or ""),
        age=_years(str(data.get("PatientAge") or "")),
        pixel_mm=_spacing(data),
        flags=tuple(sorted(_flags(data))),
        synthetic=str(data.get("SyntheticData")).upper() == "YES",
    )


def _view(data: Any) -> str:
    """CC or MLO by ViewPosition, else by ViewCodeSequence; implants displaced (ID) included."""
    told = str(data.get("ViewPosition") or "").upper().strip()
    told = told.removesuffix("ID") if told in ("CCID", "MLOID") else told
    if told:
        return told if told in ("CC", "MLO") else ""
    for code, meaning in _codes(data.get("ViewCodeSequence")):
        named = {"craniocaudal": "CC", "mediolateraloblique": "MLO"}.get(
            meaning.replace("-", "").replace(" ", "")
        )
        return _VIEWS.get(code) or named or ""
    return ""


def _flags(data: Any) -> set[str]:
    """What the header tells of implants, magnification, spot compression, biopsies and marks."""
    flags = set()
    views = data.get("ViewCodeSequence") or []
    modifiers = [c for view in views for c in _codes(view.get("ViewModifierCodeSequence"))]
    modifiers += _codes(data.get("ViewModifierCodeSequence"))
    flags |= {_MODIFIERS[code] for code, _ in modifiers if code in _MODIFIERS}
    if any(code in _SPECIMEN for code, _ in _codes(views)):
        flags.add("biopsy")
    told = [meaning for _, meaning in [*modifiers, *_codes(views)]]
    told += [str(data.get(name) or "").lower() for name in ("ViewPosition", "PaddleDescription")]
    told += [str(word).lower() for word in list(data.get("ImageType") or [])[2:]]
    flags |= {flag for text in told for word, flag in _WORDS if word in text}
    position = str(data.get("ViewPosition") or "").upper()
    if position in ("CCID", "MLOID") or str(data.get("BreastImplantPresent")).upper() == "YES":
        flags.add("implant")
    if position.startswith("MAG"):
        flags.add("magnification")
    factor = data.get("EstimatedRadiographicMagnificationFactor")
    if factor is not None and float(factor) > _MAGNIFIES:
        flags.add("magnification")
    if str(data.get("BurnedInAnnotation")).upper() == "YES":
        flags.add("marked")
    return flags


def _codes(sequence: Any) -> list[tuple[str, str]]:
    """Code and meaning (in lower case) of each item."""
    return [
        (str(item.get("CodeValue") or ""), str(item.get("CodeMeaning") or "").lower())
        for item in sequence or []
    ]


def _wall(orientation: Any) -> str:
    """Side of the chest wall: rows that run towards the patient's front (A) start at the wall."""
    rows = str(orientation[0]) if orientation and not isinstance(orientation, str) else ""
    return {"A": "left", "P": "right"}.get(rows[:1], "")


def _years(text: str) -> float:
    return float(text[:3]) if text[:3].isdecimal() and text.endswith("Y") else math.nan


def _spacing(data: Any) -> float:
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        value = data.get(name)
        if value is not None and not isinstance(value, str) and len(value) == 2:
            return float(value[1])
    return math.nan
