"""Files that are cut, that lie about themselves or that attack whoever reads them."""

import functools
import gzip
import io
import pickle
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from dicoms import half_breast, transcode, write_dicom
from PIL import Image
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

SECRET = "Qzvxjwk"  # in the name of every hostile file and in what it holds


class Payload:
    """Unpickled, it makes the file `canary`."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (Path.touch, (self.canary,))


def pickled(canary: Path) -> bytes:
    return pickle.dumps(Payload(canary))


def npy(array: Any, *, pickles: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=pickles)
    return file.getvalue()


def npy_header(text: str, body: bytes = b"", version: int = 1) -> bytes:
    """A .npy whose header says `text`."""
    head = text.encode() + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(head))
    return b"\x93NUMPY" + bytes([version, 0]) + length + head + body


# ---- pictures


def grey(number: int = 0) -> Any:
    return (half_breast(level=1600 + 40 * number) // 16).astype(np.uint8)


def picture(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(grey()).save(file, kind, **options)
    return file.getvalue()


def nifti(shape: tuple[int, ...] | None = None, *, packed: bool = True, **fields: Any) -> bytes:
    """A NIfTI of a breast, its header's `fields` changed afterwards."""
    import nibabel

    image = nibabel.Nifti1Image(grey().T.astype(np.uint8), np.eye(4))
    content = bytearray(image.to_bytes())
    places = {"dim": (40, "<8h"), "datatype": (70, "<h"), "bitpix": (72, "<h")}
    places |= {"vox_offset": (108, "<f"), "scl_slope": (112, "<f"), "scl_inter": (116, "<f")}
    places |= {"sizeof_hdr": (0, "<i"), "magic": (344, "4s"), "pixdim": (76, "<8f")}
    if shape is not None:
        fields["dim"] = (len(shape), *shape, *[1] * (7 - len(shape)))
    for name, value in fields.items():
        place, form = places[name]
        values = value if isinstance(value, tuple) else (value,)
        struct.pack_into(form, content, place, *values)
    return gzip.compress(bytes(content)) if packed else bytes(content)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    crc = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def png(width: int, height: int, body: bytes, *more: bytes, depth: int = 8) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", head), *more, png_chunk(b"IDAT", body), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(**tags: int) -> bytes:
    """A little-endian TIFF with one directory of long `tags` and sixteen bytes of pixels."""
    numbers = {"width": 256, "height": 257, "bits": 258, "packing": 259, "polarity": 262}
    numbers |= {"offset": 273, "samples": 277, "rows": 278, "bytes": 279}
    said = {"width": 4, "height": 4, "bits": 8, "packing": 1, "polarity": 1}
    said |= {"offset": 8, "samples": 1, "rows": 4, "bytes": 16} | tags
    entries = sorted((numbers[name], value) for name, value in said.items() if name != "next")
    body = struct.pack("<H", len(entries))
    body += b"".join(struct.pack("<HHII", number, 4, 1, value) for number, value in entries)
    body += struct.pack("<I", said.get("next", 0))
    return struct.pack("<2sHI", b"II", 42, 24) + bytes(16) + body


# ---- DICOM


def dicom(**changes: Any) -> bytes:
    """A mammogram whose data set is changed; `None` removes, a function gets the data set."""
    change = changes.pop("change", None)
    raw = changes.pop("raw", None)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of values that the standard forbids
        data = _base()
        for name, value in changes.items():
            if value is None:
                del data[name]
            else:
                setattr(data, name, value)
        if change:
            change(data)
        data.save_as(file)
    content = file.getvalue()
    return raw(content) if raw else content


def _base() -> Any:
    data = pydicom.dcmread(io.BytesIO(_written()))
    data.PatientName = f"{SECRET}^Jane"
    data.PatientID = SECRET
    return data


@functools.cache
def _written() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = write_dicom(Path(folder) / "a.dcm", half_breast(), ImageLaterality="L")
        return path.read_bytes()


def packed(syntax: UID) -> bytes:
    """The same mammogram in another transfer syntax."""
    data = _base()
    file = io.BytesIO()
    if syntax in (RLELossless, JPEG2000Lossless):
        data.compress(syntax, generate_instance_uid=False)
        data.save_as(file)
    elif syntax in (JPEGLosslessSV1, JPEGLSLossless):
        return _by_gdcm(syntax)
    else:
        data.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            little = syntax.is_little_endian
            pydicom.dcmwrite(
                file,
                data,
                implicit_vr=syntax.is_implicit_VR,
                little_endian=little,
                force_encoding=True,
            )
    return file.getvalue()


def _by_gdcm(syntax: UID) -> bytes:
    kinds = {JPEGLosslessSV1: "jpeg-lossless-sv1", JPEGLSLossless: "jpeg-ls"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        path.write_bytes(_written())
        return transcode(path, kinds[syntax]).read_bytes()


SYNTAXES: dict[str, UID] = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big_endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg_lossless": JPEGLosslessSV1,
    "jpeg_ls": JPEGLSLossless,
    "jpeg_2000": JPEG2000Lossless,
}


def deflated_bomb() -> bytes:
    """A deflated data set of 60 kB that unpacks to 60 MB."""
    content = packed(DeflatedExplicitVRLittleEndian)
    length = struct.unpack("<I", content[140:144])[0]
    head = content[: 144 + length]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    element = struct.pack("<HH2sHI", 0x0011, 0x1001, b"OB", 0, 60_000_000)
    body = packer.compress(element)
    zeros = bytes(1_000_000)
    for _ in range(60):
        body += packer.compress(zeros)
    return head + body + packer.flush()


def nested(depth: int) -> Callable[[Any], None]:
    """A sequence in a sequence, `depth` times, of undefined length."""

    def change(data: Any) -> None:
        inner = pydicom.Dataset()
        inner.PatientComments = SECRET
        for _ in range(depth):
            outer = pydicom.Dataset()
            outer.ReferencedStudySequence = [inner]
            inner = outer
        data.RequestAttributesSequence = [inner]

    return change


def deep_items(content: bytes, depth: int) -> bytes:
    """Before the pixels, `depth` sequences that begin and never end."""
    start = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    place = content.index(b"\xe0\x7f\x10\x00")
    return content[:place] + (start + item) * depth + content[place:]


def element(keyword: str, text: bytes) -> Callable[[bytes], bytes]:
    """Replace the value of a text or number element in the written bytes, length and all."""

    def change(content: bytes) -> bytes:
        tag = pydicom.datadict.tag_for_keyword(keyword)
        assert tag is not None
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        place = content.index(head)
        (length,) = struct.unpack("<H", content[place + 6 : place + 8])
        rest = content[place + 8 + length :]
        return content[: place + 6] + struct.pack("<H", len(text)) + text + rest

    return change


# ---- archives and XML


def xlsx(rows: list[list[Any]]) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def rezipped(content: bytes, member: str, body: bytes) -> bytes:
    """A zip archive with `member` replaced."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, body if name == member else old.read(name))
    return file.getvalue()


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "lol lol lol lol lol">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 20}">' for n in range(9))
    + "]>"
)


def entity(path: Path) -> str:
    return f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file://{path}">]>'
