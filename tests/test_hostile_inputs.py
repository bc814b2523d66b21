"""Two hundred hostile inputs: a clear line each, nothing lost, nothing executed, little spent."""

import contextlib
import gzip
import json
import os
import resource
import signal
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import doors
import hostile
import numpy as np
import pandas as pd
import pytest
import small
from hostile import SECRET, dicom, element, nifti, npy, npy_header, picture, png, tiff
from mlflow import MlflowClient
from preprocessed import preprocessed

from mammo import cli
from mammo.data.dataset import Dataset
from mammo.data.pixels import read_header
from mammo.errors import MammoError
from mammo.references import check_form
from mammo.run import MemoryRun

pytestmark = pytest.mark.doors

SECONDS = 10.0  # for one input; on an idle machine each takes a fraction of a second
MEGABYTES = 700  # that one input may add to the most this process has ever held


@dataclass(frozen=True)
class Place:
    """Where a hostile input finds itself."""

    source: Path  # the release
    work: Path
    canary: Path  # what nothing may make


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder = tmp_path / "release"
    folder.mkdir()
    return Place(folder, tmp_path / "work", tmp_path / "canary")


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Fails when the block takes too long or too much memory."""

    def late(*_: Any) -> None:
        raise AssertionError(f"not done after {SECONDS} s")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, held)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEGABYTES, f"{grown:.0f} MB more"


def refused(place: Place, work: Callable[[], Any]) -> str:
    """The one line that `work` is refused with; nothing else may have come of it."""
    before = files(place.work / "datasets")
    with bounded(), pytest.raises(MammoError) as caught:
        work()
    line = str(caught.value)
    assert line.strip() == line != ""
    assert "\n" not in line
    assert len(line) < 600
    assert SECRET not in line
    assert "Traceback" not in line
    assert "object at 0x" not in line
    assert not place.canary.exists()
    assert files(place.work / "datasets") == before
    assert not list(place.work.rglob("*.npy.partial"))
    return line


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def prepared(place: Place, **settings: Any) -> MemoryRun:
    """The step preprocess with its defaults and `settings`."""
    given = {"dataset": "folder", "source": str(place.source), "image_size": "16"}
    given |= {"val_fraction": 0.0, "test_fraction": 0.0, "task": "label", **settings}
    return preprocessed(place.work, **given)


def good_pictures(source: Path) -> None:
    for number in range(6):
        path = source / ("benign", "malignant")[number % 2] / f"good{number}.png"
        path.parent.mkdir(exist_ok=True)
        hostile.Image.fromarray(hostile.grey(number)).save(path)


# ---- pictures

Made = Callable[[Path], bytes]  # of the canary's path


def _cut(make: Callable[[], bytes], *shares: float) -> dict[str, Made]:
    def cut(share: float) -> Made:
        return lambda canary: make()[: int(len(make()) * share)]

    return {f"cut_{round(100 * share):02d}": cut(share) for share in shares}


def _always(make: Callable[[], bytes]) -> Made:
    return lambda canary: make()


def _lies() -> dict[str, Callable[[], bytes]]:
    """DICOM files whose header contradicts their pixels or itself."""
    lies: dict[str, dict[str, Any]] = {
        "rows_65535": {"Rows": 65535, "Columns": 65535},
        "rows_0": {"Rows": 0},
        "columns_0": {"Columns": 0},
        "rows_missing": {"Rows": None},
        "columns_missing": {"Columns": None},
        "rows_one_more": {"Rows": 97},
        "bits_allocated_0": {"BitsAllocated": 0},
        "bits_allocated_7": {"BitsAllocated": 7},
        "bits_allocated_64": {"BitsAllocated": 64},
        "bits_allocated_missing": {"BitsAllocated": None},
        "bits_stored_over_allocated": {"BitsStored": 17},
        "bits_stored_0": {"BitsStored": 0},
        "bits_stored_65535": {"BitsStored": 65535},
        "representation_7": {"PixelRepresentation": 7},
        "frames_2_billion": {"NumberOfFrames": "2000000000"},
        "frames_40": {"NumberOfFrames": "40"},
        "samples_3": {"SamplesPerPixel": 3},
        "samples_65535": {"SamplesPerPixel": 65535},
        "rgb": {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3},
        "palette": {"PhotometricInterpretation": "PALETTE COLOR"},
        "no_polarity": {"PhotometricInterpretation": None},
        "strange_polarity": {"PhotometricInterpretation": SECRET.upper()},
        "no_pixels": {"PixelData": None},
        "empty_pixels": {"PixelData": b""},
        "half_the_pixels": {"PixelData": bytes(96 * 72)},
        "window_width_0": {"WindowCenter": 100, "WindowWidth": 0},
        "window_width_negative": {"WindowCenter": 100, "WindowWidth": -5},
        "exact_width_0": {
            "WindowCenter": 100, "WindowWidth": 0, "VOILUTFunction": "LINEAR_EXACT",
        },
        "sigmoid_width_0": {"WindowCenter": 100, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
        "strange_function": {
            "WindowCenter": 100, "WindowWidth": 50, "VOILUTFunction": SECRET.upper(),
        },
        "slope_0": {"RescaleSlope": 0, "RescaleIntercept": 1},
        "slope_1e308": {"RescaleSlope": "1e308", "RescaleIntercept": "1e308"},
    }  # fmt: skip
    made: dict[str, Callable[[], bytes]] = {
        name: (lambda changes=changes: dicom(**changes)) for name, changes in lies.items()
    }
    numbers = {"WindowCenter": 2048, "WindowWidth": 4096, "RescaleSlope": 1, "RescaleIntercept": 0}
    for keyword in numbers:
        for text in (b"NaN ", b"inf ", b"-inf", b"1e999 ", b"abcd"):
            name = f"{keyword}_{text.decode().strip()}"
            made[name] = lambda keyword=keyword, text=text: dicom(
                **numbers, raw=element(keyword, text)
            )
    for name, table in {
        "lut_of_no_entries": [0, 0, 16],
        "lut_of_too_many_entries": [4096, 0, 16],
        "lut_of_0_bits": [16, 0, 0],
        "lut_of_200_bits": [16, 0, 200],
        "lut_of_two_numbers": [16, 0],
    }.items():
        made[name] = lambda table=table: dicom(change=_table(table))
    made["nested_200"] = lambda: dicom(change=hostile.nested(200))
    made["sequences_without_end"] = lambda: hostile.deep_items(dicom(), 20_000)
    made["deflated_bomb"] = hostile.deflated_bomb
    made["unknown_syntax"] = lambda: dicom(raw=_syntax(b"1.2.3.4.5.6.7.8.9.10"))
    made["retired_syntax"] = lambda: dicom(raw=_syntax(b"1.2.840.10008.1.2.4.52"))
    made["says_jpeg_2000"] = lambda: dicom(raw=_syntax(b"1.2.840.10008.1.2.4.90"))
    made["says_rle"] = lambda: dicom(raw=_syntax(b"1.2.840.10008.1.2.5"))
    made["length_beyond_the_end"] = lambda: dicom(raw=_long_element)
    return made


def _table(descriptor: list[int]) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        item = hostile.pydicom.Dataset()
        item.LUTDescriptor = descriptor
        item["LUTDescriptor"].VR = "US"
        item.add_new(0x00283006, "OW", np.arange(16, dtype=np.uint16).tobytes())
        data.VOILUTSequence = [item]

    return change


def _syntax(uid: bytes) -> Callable[[bytes], bytes]:
    """Name another transfer syntax in the meta group, whose length is kept."""
    old = b"1.2.840.10008.1.2.1\0"

    def change(content: bytes) -> bytes:
        place = content.index(b"\x02\x00\x10\x00UI")
        (length,) = struct.unpack("<H", content[place + 6 : place + 8])
        assert content[place + 8 : place + 8 + length] == old
        padded = uid + b"\0" * (len(uid) % 2)
        grown = len(padded) - length
        total = struct.unpack("<I", content[140:144])[0] + grown
        content = content[:140] + struct.pack("<I", total) + content[144:]
        rest = content[place + 8 + length :]
        return content[: place + 6] + struct.pack("<H", len(padded)) + padded + rest

    return change


def _long_element(content: bytes) -> bytes:
    place = content.index(b"\xe0\x7f\x10\x00")
    return content[: place + 8] + struct.pack("<I", 0xFFFFFFF0) + content[place + 12 :]


def _pictures() -> dict[str, tuple[str, Made]]:
    """Suffix and content of each hostile picture, by its name."""
    found: dict[str, tuple[str, Made]] = {}
    for syntax, uid in hostile.SYNTAXES.items():
        for name, make in _cut(lambda uid=uid: hostile.packed(uid), 0.05, 0.5, 0.9).items():
            found[f"dicom_{syntax}_{name}"] = (".dcm", make)
    for name, make in _lies().items():
        found[f"dicom_{name}"] = (".dcm", _always(make))
    for suffix, kind in ((".png", "PNG"), (".jpg", "JPEG"), (".tif", "TIFF"), (".pgm", "PPM")):
        whole = {"TIFF": {"compression": "tiff_lzw"}}.get(kind, {})
        make = lambda kind=kind, whole=whole: picture(kind, **whole)  # noqa: E731
        for name, cut in _cut(make, 0.01, 0.3, 0.8).items():
            found[f"{kind.lower()}_{name}"] = (suffix, cut)
    for name, make in _cut(lambda: nifti(), 0.01, 0.3, 0.95).items():
        found[f"nifti_gz_{name}"] = (".nii.gz", make)
    for name, make in _cut(lambda: nifti(packed=False), 0.01, 0.1, 0.95).items():
        found[f"nifti_{name}"] = (".nii", make)
    others: dict[str, tuple[str, Callable[[], bytes]]] = {
        "nifti_dim_32767": (".nii.gz", lambda: nifti((32767, 32767, 32767))),
        "nifti_dim_32767_unpacked": (".nii", lambda: nifti((32767, 32767, 32767), packed=False)),
        "nifti_dim_negative": (".nii.gz", lambda: nifti((-5, 10))),
        "nifti_dim_0": (".nii.gz", lambda: nifti((0, 0))),
        "nifti_eight_dims": (".nii.gz", lambda: nifti(dim=(200, *[2] * 7))),
        "nifti_of_complex": (".nii.gz", lambda: nifti(datatype=1792, bitpix=128)),
        "nifti_of_unknown_type": (".nii.gz", lambda: nifti(datatype=31000)),
        "nifti_slope_nan": (".nii.gz", lambda: nifti(scl_slope=float("nan"))),
        "nifti_offset_negative": (".nii.gz", lambda: nifti(vox_offset=-400.0)),
        "nifti_offset_huge": (".nii", lambda: nifti(packed=False, vox_offset=1e30)),
        "nifti_offset_nan": (".nii", lambda: nifti(packed=False, vox_offset=float("nan"))),
        "nifti_magic": (".nii", lambda: nifti(packed=False, magic=b"evil")),
        "nifti_of_nan": (".nii.gz", lambda: _floats(np.full((72, 96), np.nan))),
        "nifti_of_one_inf": (".nii.gz", lambda: _floats(_with(np.inf))),
        "nifti_of_one_nan": (".nii.gz", lambda: _floats(_with(np.nan))),
        "nifti_zip_bomb": (".nii.gz", lambda: gzip.compress(bytes(400_000_000), 9)),
        "png_bomb": (".png", lambda: png(30_000, 30_000, b"")),
        "png_large": (".png", lambda: png(11_000, 11_000, b"")),
        "png_0": (".png", lambda: png(0, 0, b"")),
        "png_bad_crc": (".png", lambda: picture("PNG").replace(b"IHDR", b"IHDS")),
        "png_bad_data": (".png", lambda: png(64, 64, b"nothing that zlib knows")),
        "png_text_bomb": (".png", _text_bomb),
        "png_of_depth_3": (".png", lambda: png(8, 8, b"", depth=3)),
        "jpeg_of_65535": (".jpg", _huge_jpeg),
        "tiff_bomb": (".tif", lambda: tiff(width=60_000, height=60_000)),
        "tiff_negative": (".tif", lambda: tiff(width=0xFFFFFFFF, height=1)),
        "tiff_0": (".tif", lambda: tiff(width=0, height=0)),
        "tiff_offset_outside": (".tif", lambda: tiff(offset=4_000_000_000)),
        "tiff_of_9_bits": (".tif", lambda: tiff(bits=9)),
        "tiff_of_200_samples": (".tif", lambda: tiff(samples=200)),
        "tiff_unknown_packing": (".tif", lambda: tiff(packing=31337)),
        "tiff_loop": (".tif", lambda: tiff(next=24, width=0)),
        "tiff_of_floats": (".tif", lambda: _tiff_of(np.full((32, 24), np.nan, np.float32))),
        "tiff_of_inf": (".tif", lambda: _tiff_of(np.full((32, 24), np.inf, np.float32))),
        "tiff_of_negatives": (".tif", lambda: _tiff_of(np.full((32, 24), -7, np.int32))),
        "pgm_of_text": (".pgm", lambda: b"P5\nfour four\n255\n"),
        "pgm_bomb": (".pgm", lambda: b"P5\n60000 60000\n255\n" + bytes(100)),
        "pgm_of_plain_numbers_cut": (".pgm", lambda: b"P2\n9 9\n255\n1 2 3"),
        "pgm_maximum_0": (".pgm", lambda: b"P5\n4 4\n0\n" + bytes(16)),
        "pgm_maximum_70000": (".pgm", lambda: b"P5\n4 4\n70000\n" + bytes(64)),
    }
    found |= {name: (suffix, _always(make)) for name, (suffix, make) in others.items()}
    for suffix in (".dcm", ".png", ".jpg", ".tif", ".pgm", ".nii", ".nii.gz"):
        kind = suffix.strip(".").replace(".", "_")
        found[f"{kind}_empty"] = (suffix, lambda canary: b"")
        found[f"{kind}_of_zeros"] = (suffix, lambda canary: bytes(4096))
        found[f"{kind}_is_a_pickle"] = (suffix, hostile.pickled)
    found |= {
        "dcm_is_a_png": (".dcm", _always(lambda: picture("PNG"))),
        "png_is_html": (".png", lambda canary: f"<html>{SECRET}</html>".encode()),
        "png_is_npy_of_objects": (".png", lambda canary: npy(
            np.array([hostile.Payload(canary)]), pickles=True)),
        "tif_is_a_script": (".tif", lambda canary: f"#!/bin/sh\ntouch {canary}\n".encode()),
        "png_is_postscript": (".png", lambda canary: (
            f"%!PS-Adobe-3.0 EPSF\n%%BoundingBox: 0 0 9 9\n({canary}) (w) file\n".encode())),
        "nii_gz_is_a_gzipped_pickle": (".nii.gz", lambda canary: gzip.compress(
            hostile.pickled(canary))),
    }  # fmt: skip
    return found


def _floats(values: Any) -> bytes:
    import nibabel

    return gzip.compress(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)).to_bytes())


def _with(value: float) -> Any:
    floats = hostile.grey().T.astype(np.float32)
    floats[20, 10] = value
    return floats


def _tiff_of(values: Any) -> bytes:
    file = hostile.io.BytesIO()
    hostile.Image.fromarray(values).save(file, "TIFF")
    return file.getvalue()


def _text_bomb() -> bytes:
    import zlib

    packed = zlib.compress(bytes(200_000_000), 9)
    return png(8, 8, b"", hostile.png_chunk(b"zTXt", b"k\0\0" + packed))


def _huge_jpeg() -> bytes:
    content = picture("JPEG")
    place = content.index(b"\xff\xc0")
    return content[: place + 5] + struct.pack(">HH", 65535, 65535) + content[place + 9 :]


# What breaks no rule that matters: read as if it were not there, and to sane greys
HARMLESS = (
    "dicom_nested_200",
    "dicom_length_beyond_the_end",  # all pixels are there
    "nifti_slope_nan",  # the format's word for no slope
)
PICTURES = _pictures()


@pytest.mark.parametrize("name", PICTURES)
def test_a_hostile_picture_is_one_line(name: str, place: Place) -> None:
    good_pictures(place.source)
    suffix, make = PICTURES[name]
    path = place.source / "malignant" / f"{SECRET}{suffix}"
    path.write_bytes(make(place.canary))
    if name in HARMLESS:
        with bounded():
            data = Dataset(prepared(place).uploaded["dataset"])
        assert len(data) == 7
        assert np.isfinite(data.images(range(7))).all()
        return
    refused(place, lambda: prepared(place))
    listed = next((place.work / "private").glob("rejected-*.csv"))
    assert SECRET in listed.read_text()  # its owner finds it


def test_hostile_pictures_together_are_left_out_and_no_other_is(place: Place) -> None:
    """What cannot be used is listed; what can is the dataset that it would be without the rest."""
    good_pictures(place.source)
    alone = Dataset(prepared(place, strict=False).uploaded["dataset"])
    for name in [each for number, each in enumerate(PICTURES) if number % 4 == 0]:
        if name not in HARMLESS:
            suffix, make = PICTURES[name]
            hostile_one = place.source / "malignant" / f"{SECRET}{name}{suffix}"
            hostile_one.write_bytes(make(place.canary))
    tracked = prepared(place, strict=False)
    data = Dataset(tracked.uploaded["dataset"])
    assert tracked.last["rejected"] >= 40
    assert len(data) == len(alone) == 6
    # the header of a broken file counts for the depth: 16 bits hold what 8 bits would
    np.testing.assert_allclose(data.images(range(6)), alone.images(range(6)), atol=1 / 255)
    assert list(data.manifest["image_id"]) == list(alone.manifest["image_id"])
    assert SECRET not in tracked.tables["rejected"].to_csv()
    assert not place.canary.exists()


def test_a_deflated_file_is_not_unpacked_beyond_its_limit(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place.source / "a.dcm"
    path.write_bytes(hostile.deflated_bomb())
    monkeypatch.setattr("mammo.data.dicom._MOST_UNPACKED", 20 << 20)
    monkeypatch.setattr("pydicom.dcmread", None)  # it would unpack all of it
    assert "unpacks to more than 20 MiB" in refused(place, lambda: read_header(path))


# ---- tables

CSV = {
    "dataset": "csv",
    "task": "malignancy2",
    "path_column": "image",
    "patient_column": "who",
    "label_column": "cancer",
    "class_map": "malignant=1,benign=0",
    "crop": "none",
}
HEAD = "image,who,cancer,age\n"
ROWS = "".join(f"good{n}.png,p{n},{n % 2},5{n}\n" for n in range(6))


def _row(cells: str) -> bytes:
    return f"{HEAD}{ROWS}{cells}\n".encode()


TABLES: dict[str, Any] = {
    "empty": b"",
    "one_newline": b"\n",
    "mark_alone": b"\xef\xbb\xbf",
    "header_alone": HEAD.encode(),
    "no_header": ROWS.encode(),
    "cut_in_a_quote": _row(f'"{SECRET}'),
    "latin_1": _row(f"{SECRET}.png,M\xfcller,1,1").decode().encode("latin-1"),
    "utf_16": (HEAD + ROWS).encode("utf-16"),
    "utf_32": (HEAD + ROWS).encode("utf-32"),
    "surrogates": _row("x,p,1,5") + b"\xed\xa0\x80,p,1,5\n",
    "nul_in_a_path": _row(f"{SECRET}\0.png,p,1,5"),
    "nuls": bytes(10_000),
    "giant_field": _row(f"{SECRET * 2_000_000},p,1,5"),
    "giant_line_without_end": HEAD.encode() + b"x" * 20_000_000,
    "million_columns": (",".join(f"c{n}" for n in range(1_000_000)) + "\n").encode(),
    "million_fields": _row("," * 1_000_000 + SECRET),
    "column_twice": b"image,who,cancer,who\ngood0.png,p,1,q\n",
    "row_twice": _row("good0.png,p0,0,50"),
    "row_twice_by_another_path": _row("./good0.png,p0,0,50"),
    "of_html": f"<html><body>{SECRET}</body></html>".encode(),
    "of_json": json.dumps({"image": SECRET}).encode(),
    "random_bytes": np.random.default_rng(0).bytes(5000),
    "a_zip": hostile.xlsx([["image", "who", "cancer", "age"]]),
    "gzipped": gzip.compress((HEAD + ROWS).encode()),
    "a_pickle": hostile.pickled,
    "up": _row(f"../{SECRET}.png,p,1,5"),
    "up_and_down": _row(f"a/../../{SECRET}.png,p,1,5"),
    "up_with_backslashes": _row(f"..\\{SECRET}.png,p,1,5"),
    "absolute": _row("/etc/passwd,p,1,5"),
    "home": _row(f"~/{SECRET}.png,p,1,5"),
    "url": _row(f"file:///etc/{SECRET},p,1,5"),
    "device": _row("/dev/zero,p,1,5"),
    "dots": _row("..,p,1,5"),
    "dot": _row(".,p,1,5"),
    "no_path": _row(",p,1,5"),
    "long_path": _row(f"{SECRET * 700}.png,p,1,5"),
    "deep_path": _row(f"{'a/' * 3000}{SECRET}.png,p,1,5"),
    "of_a_folder": _row("folder,p,1,5"),
    "of_a_pipe": _row("pipe.png,p,1,5"),
    "of_a_loop": _row("loop.png,p,1,5"),
    "of_a_link_out": _row("out.png,p,1,5"),
    "of_a_link_to_a_device": _row("zero.png,p,1,5"),
    "through_a_link_out": _row("etc/passwd,p,1,5"),
    "label_nan": _row("good0.png,p,nan,5"),
    "label_formula": _row(f"=cmd|'/c touch {SECRET}'!A0,p,=1+1,5"),
    "label_of_a_name": _row(f"x.png,p,{SECRET},5"),
}


def tricky_files(source: Path) -> None:
    """A folder, a pipe and links, for tables to name."""
    for number in range(6):
        hostile.Image.fromarray(hostile.grey(number)).save(source / f"good{number}.png")
    (source / "folder").mkdir()
    os.mkfifo(source / "pipe.png")
    (source / "loop.png").symlink_to(source / "loop.png")
    (source / "out.png").symlink_to("/etc/hostname")
    (source / "zero.png").symlink_to("/dev/zero")
    (source / "etc").symlink_to("/etc")


@pytest.mark.parametrize("name", TABLES)
def test_a_hostile_table_is_one_line(name: str, place: Place) -> None:
    tricky_files(place.source)
    content = TABLES[name]
    made = content(place.canary) if callable(content) else content
    (place.source / f"{SECRET}.csv").write_bytes(made)
    refused(place, lambda: prepared(place, **CSV))


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "device", "link_out"])
def test_a_table_that_is_no_file_is_one_line(kind: str, place: Place, tmp_path: Path) -> None:
    tricky_files(place.source)
    path = place.source / "list.csv"
    outside = tmp_path / "outside.csv"
    outside.write_text(HEAD + ROWS)
    {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "loop": lambda: path.symlink_to(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "link_out": lambda: path.symlink_to(outside),
    }[kind]()
    for named in ("", "list.csv"):
        refused(place, lambda named=named: prepared(place, **CSV, csv=named))


@pytest.mark.parametrize("age", ["nan", "inf", "-inf", "1e999", "-5", "1e308", "old", "4_2"])
def test_an_age_that_is_none_is_not_known(age: str, place: Place) -> None:
    tricky_files(place.source)
    (place.source / "list.csv").write_text(HEAD + ROWS.replace(",50\n", f",{age}\n"))
    data = Dataset(prepared(place, **CSV, keep_columns="age").uploaded["dataset"])
    ages = data.manifest["age"]
    assert ages.isna().sum() == 1
    assert ages.dropna().between(51, 55).all()


SPREADSHEETS: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda canary: b"",
    "of_text": lambda canary: b"ID1,LeftRight\n",
    "a_pickle": hostile.pickled,
    "cut": lambda canary: sheet()[:2000],
    "of_nothing": lambda canary: hostile.xlsx([]),
    "without_its_columns": lambda canary: hostile.xlsx([["a", "b"], [1, 2]]),
    "bomb": lambda canary: hostile.rezipped(
        sheet(), "xl/worksheets/sheet1.xml", bytes(300_000_000)
    ),
    "bomb_of_strings": lambda canary: hostile.rezipped(
        sheet(), "xl/sharedStrings.xml", b"<sst>" + b"<si><t>a</t></si>" * 5_000_000
    ),
    "laughs": lambda canary: hostile.rezipped(
        sheet(), "xl/worksheets/sheet1.xml",
        (hostile.LAUGHS + "<worksheet>&j;</worksheet>").encode(),
    ),
    "reads_a_file": lambda canary: hostile.rezipped(
        sheet(), "xl/workbook.xml", (hostile.entity(canary) + "<workbook>&a;</workbook>").encode()
    ),
    "of_17_billion_cells": lambda canary: hostile.rezipped(
        sheet(), "xl/worksheets/sheet1.xml", _cells('<row r="2000000000"><c r="A1"/></row>')
    ),
    "of_a_far_column": lambda canary: hostile.rezipped(
        sheet(), "xl/worksheets/sheet1.xml", _cells('<row r="1"><c r="ZZZZZZZ1"><v>1</v></c></row>')
    ),
    "broken_xml": lambda canary: hostile.rezipped(
        sheet(), "xl/worksheets/sheet1.xml", b"<worksheet><sheetData><row>"
    ),
    "numbers_that_are_none": lambda canary: hostile.xlsx(
        [CMMD, ["D1-0001", "L", float("inf"), 1, SECRET, SECRET, SECRET]]
    ),
    "without_workbook": lambda canary: hostile.rezipped(sheet(), "xl/workbook.xml", b""),
}  # fmt: skip
CMMD = ["ID1", "LeftRight", "Age", "number", "abnormality", "classification", "subtype"]


def _cells(rows: str) -> bytes:
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    size = '<dimension ref="A1:XFD1048576"/>'
    return f'<worksheet xmlns="{space}">{size}<sheetData>{rows}</sheetData></worksheet>'.encode()


def sheet() -> bytes:
    return hostile.xlsx([CMMD, ["D1-0001", "L", 50, 1, "mass", "Benign", None]])


@pytest.mark.parametrize("name", SPREADSHEETS)
def test_a_hostile_spreadsheet_is_one_line(name: str, place: Place) -> None:
    place.canary.write_text(SECRET)  # here what nothing may read
    path = place.source / "CMMD_clinicaldata_revision.xlsx"
    path.write_bytes(SPREADSHEETS[name](place.canary))
    (place.source / "1.dcm").write_bytes(dicom(PatientID="D1-0001"))
    place.canary.unlink()
    refused(place, lambda: prepared(place, dataset="cmmd", task="malignancy2"))


OUTLINES: dict[str, bytes] = {
    "empty": b"",
    "cut": b"<?xml version='1.0'?><plist><dict><key>Images</key>",
    "laughs": (hostile.LAUGHS + "<plist><string>&j;</string></plist>").encode(),
    "reads_a_file": (hostile.entity(Path("/etc/passwd")) + "<plist>&a;</plist>").encode(),
    "deep": b"<plist>" + b"<array>" * 100_000,
    "no_images": b"<plist><dict><key>a</key><string>b</string></dict></plist>",
    "of_a_number": b"<plist><integer>3</integer></plist>",
    "huge_number": b"<plist><integer>" + b"9" * 5000 + b"</integer></plist>",
    "images_of_text": b"<plist><dict><key>Images</key><string>x</string></dict></plist>",
    "binary": b"bplist00" + bytes(100),
    "nul": b"<plist>\0</plist>",
}


@pytest.mark.parametrize("name", OUTLINES)
def test_a_hostile_outline_is_one_line(
    name: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "data" / "sources"))
    from releases import RELEASES

    RELEASES["inbreast"](place.source)
    for path in place.source.rglob("*.xml"):
        path.write_bytes(OUTLINES[name])
    refused(place, lambda: prepared(place, dataset="inbreast", task="birads"))


# ---- stored datasets


def made_dataset(place: Place) -> Path:
    """A dataset with images, masks and synthetic rows, as somebody may hand it over."""
    rows = small.real_rows({"benign": [2, 1], "malignant": [1, 2]}, sha256="")
    rows[-1]["split"] = rows[-2]["split"] = "test"
    rows += small.synthetic_rows({"benign": 2})
    seen = small.seen_by("run1", ["benign-0"])
    return small.dataset(place.source / "datasets", rows, seen=seen).folder


def used(folder: Path) -> None:
    """All that a step asks of a dataset."""
    data = Dataset(folder)
    rows = range(len(data))
    data.images(rows)
    data.masks(rows)
    data.label_ids()
    assert data.generator_training is not None
    data.verify()


Change = Callable[[Path, Path], None]  # of the dataset's folder; the canary


def _json(**values: Any) -> Change:
    def change(folder: Path, canary: Path) -> None:
        path = folder / "dataset.json"
        about = json.loads(path.read_text())
        for name, value in values.items():
            if value is ...:
                del about[name]
            elif isinstance(value, dict) and name == "classes":
                about[name] |= value
            else:
                about[name] = value
        path.write_text(json.dumps(about))

    return change


def _content(name: str, content: bytes | Callable[[Path], bytes]) -> Change:
    def change(folder: Path, canary: Path) -> None:
        (folder / name).write_bytes(content(canary) if callable(content) else content)

    return change


def _cell(column: str, value: Any, row: int = 0) -> Change:
    def change(folder: Path, canary: Path) -> None:
        frame = pd.read_parquet(folder / "manifest.parquet")
        values = list(frame[column])
        values[row] = value
        frame[column] = pd.Series(values)
        frame.to_parquet(folder / "manifest.parquet")

    return change


def _column(name: str, values: Callable[[pd.Series], Any] | None) -> Change:
    def change(folder: Path, canary: Path) -> None:
        frame = pd.read_parquet(folder / "manifest.parquet")
        frame = frame.drop(columns=name) if values is None else frame.assign(
            **{name: values(frame[name])})  # fmt: skip
        frame.to_parquet(folder / "manifest.parquet")

    return change


def _shortened(name: str, share: float) -> Change:
    def change(folder: Path, canary: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return change


def _instead(make: Callable[[Path, Path], None]) -> Change:
    """Put something that is no file in the place of the shard."""

    def change(folder: Path, canary: Path) -> None:
        shard = folder / "images-0000.npy"
        kept = folder.parent.parent / "kept.npy"
        shard.rename(kept)
        make(shard, kept)

    return change


def _said(shape: str = "(8, 1, 8, 8)", kind: str = "'<u2'", more: str = "") -> str:
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}{more}}}"


SHARD = "images-0000.npy"
CASES: dict[str, Change] = {
    **{f"json_{name}": _content("dataset.json", content) for name, content in {
        "empty": b"", "cut": b'{"name": ', "a_list": b"[]", "null": b"null", "a_number": b"3",
        "deep": b"[" * 200_000, "deep_objects": b'{"a":' * 200_000, "of_zeros": bytes(1000),
        "utf_16": '{"name": 1}'.encode("utf-16"), "digits": b'{"schema_version": ' + b"9" * 5000,
        "long": b'{"name": "' + b"x" * 70_000_000 + b'"}', "nan": b"NaN",
    }.items()},
    "json_is_a_pickle": _content("dataset.json", hostile.pickled),
    **{f"json_without_{name}": _json(**{name: ...})
       for name in ("schema_version", "name", "digest", "classes", "shape")},
    **{f"version_{value}": _json(schema_version=value)
       for value in (0, 2, "1", True, 1e9, None, [1], {"a": 1})},
    **{f"digest_{number}": _json(digest=value)
       for number, value in enumerate(("", "../..", 5, None, "g" * 32, "A" * 32, [], "0" * 32))},
    **{f"shape_{number}": _json(shape=value) for number, value in enumerate((
        [], [1, 8], [0, 8, 8], [-1, 8, 8], [1, 8, 8.5], ["1", 8, 8], [1, 10**9, 10**9],
        [True, 8, 8], "188", None, [1, 16, 16], [3, 8, 8], [[1], 8, 8]))},
    **{f"classes_{number}": _json(classes=value) for number, value in enumerate((
        {"names": []}, {"names": ["benign"]}, {"names": ["benign", "benign"]},
        {"names": ["benign", 5]}, {"names": "benign"}, {"names": None}, {"positive": "cyst"},
        {"positive": None}, {"label_kind": "rumor"}, {"task": 5}, {"names": {"benign": 0}},
        {"names": ["", "malignant"]}, {"names": ["malignant", "cyst"]}))},
    "classes_are_a_list": _json(classes=["benign", "malignant"]),
    **{f"parents_{number}": _json(parents=value) for number, value in enumerate((
        "x", [1], [{"digest": "../../etc", "uri": "/etc"}], [{"digest": 5, "uri": 6}],
        [{"uri": "/etc"}], {"digest": "x"}))},
    "name_is_an_object": _json(name={}),
    **{f"manifest_{name}": _content("manifest.parquet", content) for name, content in {
        "empty": b"", "of_text": b"a,b\n1,2\n", "of_magic_alone": b"PAR1PAR1",
        "of_zeros": b"PAR1" + bytes(500) + b"PAR1",
        "of_a_huge_footer": b"PAR1" + bytes(8) + b"\xff\xff\xff\x7fPAR1",
    }.items()},
    "manifest_is_a_pickle": _content("manifest.parquet", hostile.pickled),
    **{f"manifest_cut_{share}": _shortened("manifest.parquet", share / 100)
       for share in (10, 60, 99)},
    **{f"manifest_without_{name}": _column(name, None)
       for name in ("label", "shard", "index", "split", "group_id", "is_synthetic")},
    "index_of_floats": _column("index", lambda values: values + 0.5),
    "index_of_texts": _column("index", lambda values: values.astype(str)),
    "index_of_lists": _column("index", lambda values: [[1]] * len(values)),
    "label_of_numbers": _column("label", lambda values: range(len(values))),
    "label_of_lists": _column("label", lambda values: [["benign"]] * len(values)),
    "label_of_bytes": _column("label", lambda values: [b"benign"] * len(values)),
    "synthetic_of_texts": _column("is_synthetic", lambda values: values.astype(str)),
    "split_of_nothing": _column("split", lambda values: [None] * len(values)),
    "index_negative": _cell("index", -1),
    "index_beyond": _cell("index", 8),
    "index_far_beyond": _cell("index", 2**62),
    "index_lowest": _cell("index", -(2**63)),
    **{f"shard_{number}": _cell("shard", value) for number, value in enumerate((
        "../../../../etc/passwd", "/etc/passwd", "..", ".", "", "images-0000.npy/../x",
        "images-0001.npy", f"{'0' * 32}/../../x.npy", f"{'0' * 32}/images-0000.npy",
        "masks-0000.npy", "images-0000.npy\0", "images-0000.npy\n", "~/images-0000.npy",
        "dataset.json"))},
    "image_twice": _cell("image_id", "benign-0-1"),
    "image_of_another_hash": _cell("sha256", "0" * 64),
    "mask_that_is_not_there": _cell("mask_sha256", "0" * 64),
    "label_outside": _cell("label", "cyst"),
    "label_missing": _cell("label", None),
    "split_outside": _cell("split", "dev"),
    "patient_in_two_splits": _cell("split", "test"),
    "synthetic_in_the_test": _cell("split", "test", -1),
    "no_patient": _cell("group_id", ""),
    "generator_unknown": _cell("generator_run_id", "", -1),
    **{f"shard_{name}": _content(SHARD, content) for name, content in {
        "empty": b"", "of_magic_alone": b"\x93NUMPY", "of_text": b"pixels",
        "of_zeros": bytes(2000),
        "of_floats": npy(np.full((8, 1, 8, 8), np.nan)),
        "of_complex": npy(np.ones((8, 1, 8, 8), complex)),
        "of_texts": npy(np.full((8, 1, 8, 8), "ab")),
        "of_records": npy(np.zeros((8, 1, 8, 8), [("a", "u2")])),
        "of_another_size": npy(np.zeros((8, 1, 4, 4), np.uint16)),
        "of_two_dimensions": npy(np.zeros((8, 8), np.uint16)),
        "of_no_dimension": npy(np.uint16(3)),
        "of_no_images": npy(np.zeros((0, 1, 8, 8), np.uint16)),
        "of_fewer_images": npy(np.zeros((5, 1, 8, 8), np.uint16)),
        "says_a_million": npy_header(_said("(1000000, 1, 8, 8)"), bytes(500)),
        "says_2_to_62": npy_header(_said(f"({2**62}, 1, 8, 8)"), bytes(500)),
        "says_2_to_80": npy_header(_said(f"({2**80}, 1, 8, 8)"), bytes(500)),
        "says_minus_8": npy_header(_said("(-8, 1, 8, 8)"), bytes(500)),
        "says_true": npy_header(_said("(True, 1, 8, 8)"), bytes(500)),
        "says_objects": npy_header(_said(kind="'|O'"), bytes(500)),
        "says_a_call": npy_header("__import__('os').system('true')", bytes(500)),
        "says_a_kind_of_its_own": npy_header(_said(kind="'<u3'"), bytes(500)),
        "says_too_little": npy_header("{'descr': '<u2'}", bytes(500)),
        "says_too_much": npy_header(_said(more=", 'x': 1"), bytes(500)),
        "says_it_deep": npy_header("(" * 5000, bytes(500)),
        "says_it_long": npy_header(_said() + " " * 60_000, bytes(500)),
        "has_4_GB_of_header": b"\x93NUMPY\x02\0\xff\xff\xff\xff{",
        "is_of_version_9": b"\x93NUMPY\x09\0\x10\0{}",
    }.items()},
    "shard_is_a_pickle": _content(SHARD, hostile.pickled),
    "shard_of_pickled_objects": _content(SHARD, lambda canary: npy(
        np.array([hostile.Payload(canary)] * 8), pickles=True)),
    "shard_is_an_archive": _content(SHARD, lambda canary: hostile.rezipped(
        hostile.xlsx([]), "xl/workbook.xml", hostile.pickled(canary))),
    **{f"shard_cut_{share}": _shortened(SHARD, share / 100) for share in (3, 50, 99)},
    "shard_missing": _instead(lambda shard, kept: None),
    "shard_is_a_folder": _instead(lambda shard, kept: shard.mkdir()),
    "shard_is_a_pipe": _instead(lambda shard, kept: os.mkfifo(shard)),
    "shard_is_a_loop": _instead(lambda shard, kept: shard.symlink_to(shard)),
    "shard_is_a_device": _instead(lambda shard, kept: shard.symlink_to("/dev/zero")),
    "shard_is_passwd": _instead(lambda shard, kept: shard.symlink_to("/etc/passwd")),
    "shard_is_a_link_out": _instead(lambda shard, kept: shard.symlink_to(kept)),
    "training_of_text": _content("generator_training.parquet", b"x"),
    "training_is_a_pickle": _content("generator_training.parquet", hostile.pickled),
    "training_without_columns": lambda folder, canary: pd.DataFrame({"a": [1]}).to_parquet(
        folder / "generator_training.parquet"),
    "training_of_numbers": lambda folder, canary: pd.DataFrame(
        {name: [1] for name in ("run_id", "salt", "group_id", "sha256")}).to_parquet(
        folder / "generator_training.parquet"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_dataset_is_one_line(name: str, place: Place) -> None:
    folder = made_dataset(place)
    used(folder)
    CASES[name](folder, place.canary)
    refused(place, lambda: used(folder))


# ---- settings


def _bomb(levels: int = 9) -> str:
    lines = ["a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    for number in range(levels):
        before, name = chr(97 + number), chr(98 + number)
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    return "\n".join(lines)


def _mapping_bomb() -> str:
    lines = ["a: &a {x: 1, y: 2}"]
    for number in range(20):
        before, name = chr(97 + number), chr(98 + number)
        lines.append(f"{name}: &{name} {{p: *{before}, q: *{before}, r: *{before}}}")
    return "\n".join(lines)


CONFIGS: dict[str, Any] = {
    "calls": lambda canary: f"!!python/object/apply:os.mknod ['{canary}']".encode(),
    "calls_in_a_value": lambda canary: (
        f"dataset: !!python/object/apply:pathlib.Path.touch ['{canary}']".encode()),
    "names_a_module": b"dataset: !!python/module:os",
    "makes_an_object": b"dataset: !!python/object/new:os.system [true]",
    "a_pickle": hostile.pickled,
    "laughs": _bomb().encode(),
    "laughing_mappings": _mapping_bomb().encode(),
    "an_alias_of_itself": b"&a [*a]",
    "merges": b"a: &a {dataset: mias}\n<<: *a",
    "deep_lists": b"[" * 5000,
    "deep_mappings": b"{a: " * 5000,
    "deep_blocks": "".join(f"{' ' * n}a:\n" for n in range(3000)).encode(),
    "empty": b"",
    "a_list": b"- dataset\n- mias",
    "a_word": b"mias",
    "a_number": b"3",
    "binary": np.random.default_rng(1).bytes(3000),
    "nuls": bytes(100),
    "utf_16_without_mark": "dataset: mias".encode("utf-16-le"),
    "latin_1": "run_name: Müller".encode("latin-1"),
    "tabs": b"dataset:\n\t- mias",
    "a_huge_number": b"dataset: phantom\nseed: " + b"9" * 5000,
    "a_huge_exponent": b"dataset: phantom\nval_fraction: 1e400",
    "not_a_number": b"dataset: phantom\nval_fraction: .nan",
    "infinity": b"dataset: phantom\ntest_fraction: .inf",
    "negative": b"dataset: phantom\nlimit: -1",
    "no_date": b"dataset: 2020-13-45",
    "a_list_as_value": b"dataset: phantom\nexclude: [implant, spot]",
    "an_object_as_value": b"dataset: phantom\nlimit: {a: 1}",
    "binary_as_value": b"dataset: !!binary aGVsbG8=",
    "a_set_as_value": b"dataset: !!set {a, b}",
    "numbers_as_names": b"1: 2\n",
    "nothing_as_name": b"~: phantom\n",
    "an_unknown_name": b"datasets: phantom",
    "options_as_names": b"--help: true",
    "two_documents": b"dataset: phantom\n---\ndataset: mias",
    "a_long_name": b"x" * 5000 + b": 1",
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_hostile_config_is_one_line(name: str, place: Place) -> None:
    content = CONFIGS[name]
    path = place.source / "config.yaml"
    path.write_bytes(content(place.canary) if callable(content) else content)
    refused(place, lambda: cli.parse("preprocess", [f"--config={path}"]))


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "device", "missing"])
def test_a_config_that_is_no_file_is_one_line(kind: str, place: Place) -> None:
    path = place.source / "config.yaml"
    {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "loop": lambda: path.symlink_to(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "missing": lambda: None,
    }[kind]()
    refused(place, lambda: cli.parse("preprocess", [f"--config={path}"]))


SPLITS: dict[str, Any] = {
    "empty": b"",
    "a_pickle": hostile.pickled,
    "nuls": bytes(1000),
    "random_bytes": np.random.default_rng(2).bytes(3000),
    "latin_1": b"patient,split\nM\xfcller,train\n",
    "header_alone": b"patient,split\n",
    "no_header": f"{SECRET},train\n".encode(),
    "another_split": f"patient,split\ngood0.png,{SECRET}\n".encode(),
    "columns_swapped": f"split,patient\n{SECRET},train\n".encode(),
    "a_fold_of_nan": b"patient,split,fold\ngood0.png,train,nan\n",
    "a_fold_of_inf": b"patient,split,fold\ngood0.png,train,inf\n",
    "a_fold_of_a_name": f"patient,split,fold\ngood0.png,train,{SECRET}\n".encode(),
    "a_fold_beyond": b"patient,split,fold\ngood0.png,train,99999999999999999999\n",
    "a_patient_torn": f"patient,split\n{SECRET},train\n{SECRET},test\n".encode(),
    "nobody_of_the_release": f"patient,split\n{SECRET},train\n".encode(),
    "million_columns": ",".join(f"c{n}" for n in range(300_000)).encode(),
    "more_fields": f"patient,split\n{SECRET},train,1,2,3\n".encode(),
    "an_open_quote": f'patient,split\n"{SECRET},train\n'.encode(),
    "a_digest_that_is_wrong": b"# mammo splits " + b"0" * 32 + b" salt 0\npatient,split\n",
    "a_digest_that_is_none": b"# mammo splits ../../etc salt\npatient,split\n",
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_hostile_split_file_is_one_line(name: str, place: Place) -> None:
    good_pictures(place.source)
    content = SPLITS[name]
    path = place.canary.with_name("splits.csv")
    path.write_bytes(content(place.canary) if callable(content) else content)
    refused(place, lambda: prepared(place, split_file=str(path)))


# ---- what is given for a dataset or a model


@pytest.mark.parametrize("name", ["model.pt", "data.pickle", "data.npz", "data.parquet"])
def test_a_file_is_no_dataset(name: str, place: Place) -> None:
    path = place.source / name
    path.write_bytes(hostile.pickled(place.canary))
    refused(place, lambda: check_form(str(path), "dataset", "data"))


@pytest.mark.parametrize(
    "text",
    ["", "/dev/zero", "../../..", "runs:/", "runs:/../../etc/dataset", "models:/x", "models:/a/b/c",
     "x" * 5000, "http://127.0.0.1:9/dataset", "file:///etc", "s3://bucket/dataset", "~qzv_nobody",
     "a\0b", "$(touch canary)", "; touch canary"],
)  # fmt: skip
def test_a_text_that_names_nothing_is_one_line(text: str, place: Place) -> None:
    refused(place, lambda: check_form(text, "dataset", "data"))


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("json", "parents"))])
def test_a_reference_to_a_hostile_dataset_is_one_line(name: str, place: Place) -> None:
    folder = made_dataset(place)
    CASES[name](folder, place.canary)
    seen_only_when_opened = ("json_without_schema_version", "json_without_name",
                             "json_without_classes", "json_without_shape")  # fmt: skip
    if name in seen_only_when_opened:
        check_form(str(folder), "dataset", "data")
    else:
        refused(place, lambda: check_form(str(folder), "dataset", "data"))


# ---- by the door
def test_by_the_door_each_is_exit_code_2_and_a_failed_run(
    place: Place, tmp_path: Path, store: str
) -> None:
    good_pictures(place.source)
    suffix, make = PICTURES["dicom_deflated_bomb"]
    (place.source / "malignant" / f"{SECRET}{suffix}").write_bytes(make(place.canary))
    config = tmp_path / "config.yaml"
    config.write_bytes(CONFIGS["calls_in_a_value"](place.canary))
    broken = made_dataset(place)
    CASES["shard_of_pickled_objects"](broken, place.canary)
    outcomes = [
        doors.mammo("preprocess", dataset="folder", source=place.source, task="label",
                    image_size=16),
        doors.mammo("preprocess", f"--config={config}"),
        doors.mammo("mix", real=broken, real_percentage=0.5, mix_mode="append",
                    synthetic_multiplier=0.0),
    ]  # fmt: skip
    for done in outcomes:
        assert done.code == 2, done.err[-2000:]
        assert "Traceback" not in done.err
        assert SECRET not in done.out + done.err
    assert not place.canary.exists()
    assert not (tmp_path / "home" / "datasets").exists()
    statuses = [run.info.status for run in MlflowClient().search_runs(["0"])]
    assert set(statuses) == {"FAILED"}
