"""Releases with an identifier in every place that can hide one, and the search for them.

Every text that identifies somebody holds STEM; dates and UIDs, which cannot, are those below.
"""

import base64
import gzip
import io
import re
import sqlite3
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pyarrow.parquet
import pydicom
from dicoms import half_breast, write_dicom
from PIL import Image, PngImagePlugin

STEM = "Qzvxjwk"
BORN, STUDIED, TAKEN = "19371103", "19581127", "19691019"
UID_ROOT = "2.25.771937110358"  # every UID of a planted file starts with it
_DATES = (BORN, STUDIED, TAKEN)
_MAGIC_GZIP, _MAGIC_ZIP, _MAGIC_PNG = b"\x1f\x8b", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n"


def mark(place: str) -> str:
    """A text that identifies somebody, and tells where it was hidden."""
    return f"{STEM}{place}"


# ---- planting


def dicom(path: Path, pixels: Any = None, *, patient: str = "", **tags: Any) -> Path:
    """A DICOM mammogram with an identifier in every header that can hold one.

    `tags` are set last and so override what is planted; one of None is left out.
    """
    uid = iter(f"{UID_ROOT}.{zlib.crc32(path.name.encode())}.{n}" for n in range(100))
    planted: dict[str, Any] = {
        "PatientID": patient or mark("id"),
        "PatientName": f"{mark('name')}^{mark('given')}",
        "PatientBirthDate": BORN,
        "PatientComments": f"seen with her sister {mark('comments')}",
        "PatientAddress": mark("street"),
        "PatientTelephoneNumbers": mark("phone"),
        "OtherPatientIDs": mark("otherid"),
        "PatientMotherBirthName": mark("mother"),
        "AdditionalPatientHistory": mark("history"),
        "EthnicGroup": mark("ethnic"),
        "Occupation": mark("work"),
        "StudyDate": STUDIED,
        "SeriesDate": TAKEN,
        "AcquisitionDate": TAKEN,
        "ContentDate": TAKEN,
        "AcquisitionDateTime": f"{TAKEN}101112",
        "AccessionNumber": mark("acc"),
        "StudyID": mark("study"),
        "StudyInstanceUID": next(uid),
        "SeriesInstanceUID": next(uid),
        "SOPInstanceUID": next(uid),
        "FrameOfReferenceUID": next(uid),
        "IrradiationEventUID": next(uid),
        "StudyDescription": mark("studytext"),
        "SeriesDescription": mark("seriestext"),
        "ProtocolName": mark("protocol"),
        "InstitutionName": mark("clinic"),
        "InstitutionAddress": mark("clinicstreet"),
        "InstitutionalDepartmentName": mark("ward"),
        "StationName": mark("station"),
        "ReferringPhysicianName": mark("referring"),
        "PerformingPhysicianName": mark("performing"),
        "OperatorsName": mark("operator"),
        "PhysiciansOfRecord": mark("record"),
        "DeviceSerialNumber": mark("serial"),
        "DetectorID": mark("detector"),
        "GantryID": mark("gantry"),
        "ImageComments": mark("imagecomment"),
        "WindowCenterWidthExplanation": mark("window"),
        "DerivationDescription": mark("derived"),
        "BurnedInAnnotation": "NO",
        "Manufacturer": "Maker",
        "ManufacturerModelName": "Model 1",
        "DataSetTrailingPadding": mark("padding").encode(),
    }
    chosen = {name: value for name, value in (planted | tags).items() if value is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of values that the standard forbids
        write_dicom(path, half_breast() if pixels is None else pixels, **chosen)
        _hide_more(path, uid)
    return path


def _hide_more(path: Path, uid: Iterator[str]) -> None:
    """Plant in a file's preamble, meta group, private blocks, nested sequences and overlay."""
    data = pydicom.dcmread(path)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.SourceApplicationEntityTitle = mark("aet")
    data.file_meta.ImplementationVersionName = mark("impl")
    data.preamble = mark("preamble").encode().ljust(128, b"\0")
    data.private_block(0x0011, mark("creator"), create=True).add_new(1, "LO", mark("private"))
    data.private_block(0x0013, "SOMEBODY", create=True).add_new(2, "UN", mark("bytes").encode())
    inner, outer = pydicom.Dataset(), pydicom.Dataset()
    inner.ReferencedSOPInstanceUID = next(uid)
    inner.RequestedProcedureDescription = mark("innermost")
    outer.ScheduledProcedureStepDescription = mark("procedure")
    outer.ReferencedStudySequence = [inner]
    outer.RequestingPhysician = mark("requesting")
    data.RequestAttributesSequence = [outer]
    overlay = {0x0010: ("US", 8), 0x0011: ("US", 8), 0x0040: ("CS", "G"), 0x0100: ("US", 1)}
    overlay |= {0x0050: ("SS", [1, 1]), 0x0102: ("US", 0), 0x0022: ("LO", mark("overlaytext"))}
    overlay |= {0x1500: ("LO", mark("overlaylabel")), 0x3000: ("OW", b"Qzvxjwk\0")}
    for element, (kind, value) in overlay.items():
        data.add_new((0x6000, element), kind, value)
    data.save_as(path)


def grey(number: int = 0) -> Any:
    """An 8-bit breast, each `number` another."""
    return (half_breast(level=1200 + 40 * number) // 16).astype(np.uint8)


def png(path: Path, number: int = 0, pixels: Any = None) -> Path:
    """A PNG with identifiers in tEXt, zTXt, iTXt, eXIf and after its end."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", mark("text"))
    text.add_text(mark("keyword"), mark("ztext"), zip=True)
    text.add_itxt("Comment", mark("itext"), lang="de", tkey=mark("tkey"))
    text.add_itxt("Referring", mark("zitext"), zip=True)
    picture = Image.fromarray(grey(number) if pixels is None else pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, pnginfo=text, exif=_exif(picture))
    path.write_bytes(path.read_bytes() + mark("afterend").encode())
    return path


def jpeg(path: Path, number: int = 0) -> Path:
    picture = Image.fromarray(grey(number))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=95, comment=mark("jpegcomment"), exif=_exif(picture))
    return path


def tiff(path: Path, number: int = 0) -> Path:
    tags = {270: mark("description"), 305: mark("software"), 315: mark("artist")}
    tags |= {269: mark("document"), 316: mark("host"), 33432: mark("copyright")}
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey(number)).save(path, tiffinfo={**tags, 306: f"1969:10:19 {BORN}"})
    return path


def pgm(path: Path, number: int = 0) -> Path:
    pixels = grey(number)
    head = f"P5\n# {mark('pgmcomment')}\n{pixels.shape[1]} {pixels.shape[0]}\n255\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head.encode() + pixels.tobytes())
    return path


def nifti(path: Path, number: int = 0) -> Path:
    """A gzipped NIfTI; the gzip header, the NIfTI header and an extension name somebody."""
    import nibabel

    # no two alike: a folder of volumes names no patients, and copies would be one of them
    texture = np.random.default_rng(number).uniform(0.5, 1, grey(number).shape)
    image = nibabel.Nifti1Image((grey(number) * texture).T.astype(np.uint8), np.eye(4))
    image.header["descrip"] = mark("descrip").encode()
    image.header["aux_file"] = mark("aux").encode()
    image.header["intent_name"] = mark("intent").encode()
    image.header["db_name"] = mark("db").encode()
    image.header.extensions.append(
        nibabel.nifti1.Nifti1Extension("comment", mark("extension").encode())
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw, gzip.GzipFile(f"{mark('gzip')}.nii", "wb", fileobj=raw) as file:
        file.write(image.to_bytes())
    return path


def _exif(picture: Image.Image) -> Image.Exif:
    exif = picture.getexif()
    exif[0x010E], exif[0x013B], exif[0x9286] = mark("exif"), mark("exifartist"), mark("exifuser")
    return exif


# ---- searching


def leaks(folder: Path, *texts: str, spare: Path | None = None) -> list[str]:
    """Where below `folder` (but not below `spare`) or in `texts` a planted identifier stands."""
    found = []
    for number, text in enumerate(texts):
        found += [f"text {number}: {each}" for each in identifiers(text.encode())]
    for path in sorted(folder.rglob("*")):
        if spare is not None and path.is_relative_to(spare):
            continue
        name = str(path.relative_to(folder))
        found += [f"name of {name}: {each}" for each in identifiers(name.encode())]
        if path.is_file():
            found += [f"{name}: {each}" for each in identifiers(path.read_bytes())]
    return found


def identifiers(content: bytes) -> list[str]:
    """Planted identifiers in `content` or in what is packed in it, with some text around each."""
    found = []
    for layer in layers(content):
        lowered = layer.lower()
        for form, needle in _NEEDLES.items():
            text = layer if form.startswith("base64") else lowered
            if needle in text:
                found.append(f"{form} in {_around(text, text.index(needle))}")
        for date in _DATES:
            spelled = rf"(?<!\d){date[:4]}[-:./]?{date[4:6]}[-:./]?{date[6:]}(?!\d)"
            hit = re.search(spelled.encode(), layer)
            if hit:
                found.append(f"date in {_around(layer, hit.start())}")
    return found


def _around(content: bytes, place: int) -> str:
    return repr(content[max(0, place - 20) : place + 40])


def _needles() -> Iterator[tuple[str, bytes]]:
    for what, text in (("stem", STEM.lower()), ("UID", UID_ROOT)):
        yield what, text.encode()
        yield f"{what} utf-16-le", text.encode("utf-16-le")
        yield f"{what} utf-16-be", text.encode("utf-16-be")
        yield f"{what} hex", text.encode().hex().encode()
    yield "stem HEX", STEM.encode().hex().encode()
    for before in range(3):  # the three ways a text may lie in base64's groups of three bytes
        coded = base64.b64encode(b"\0" * before + STEM.encode())
        whole = (before + len(STEM)) // 3 * 4
        yield f"base64 at {before}", coded[4 if before else 0 : whole]


_NEEDLES = dict(_needles())


def layers(content: bytes, depth: int = 0) -> Iterator[bytes]:
    """`content` and what it holds in packed or quoted form."""
    yield content
    if depth > 3:
        return
    for inner in _inside(content):
        yield from layers(inner, depth + 1)


def _inside(content: bytes) -> Iterator[bytes]:
    if content.startswith(_MAGIC_GZIP):
        yield gzip.decompress(content)
    elif content.startswith(_MAGIC_ZIP):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield "\n".join(archive.namelist()).encode()
            yield from (archive.read(name) for name in archive.namelist())
    elif content.startswith(_MAGIC_PNG):
        yield from _png_texts(content)
    elif content.startswith(b"PAR1"):
        table = pyarrow.parquet.read_table(io.BytesIO(content))
        yield repr(table.schema.metadata).encode()
        yield table.to_pandas().to_csv().encode()
    elif content.startswith(b"SQLite format 3\0"):
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(content)
            yield "\n".join(database.iterdump()).encode()
    elif b"%" in content:
        unquoted = unquote_to_bytes(content)
        if unquoted != content:
            yield unquoted
    for run in re.findall(rb"[A-Za-z0-9+/]{64,}={0,2}", content[:50_000_000]):
        if run.startswith(b"iVBORw0KGgo"):  # a PNG in a page
            yield base64.b64decode(run[: len(run) // 4 * 4])


def _png_texts(content: bytes) -> Iterator[bytes]:
    """Chunks of a PNG other than its pixels, unpacked."""
    place = len(_MAGIC_PNG)
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        kind, body = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        place += 12 + length
        if kind in (b"zTXt", b"iTXt"):
            for start in range(len(body)):  # zlib's first byte, wherever the keyword ends
                if body[start : start + 1] == b"\x78":
                    try:
                        yield zlib.decompress(body[start:])
                    except zlib.error:
                        continue
        elif kind != b"IDAT":
            yield body
