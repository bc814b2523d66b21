"""Grey values of DICOM files against pydicom's own pipeline, to the bit, in every syntax."""

import base64
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicoms import ENCODED, encode_lossless, half_breast, transcode, write_dicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from mammo.data.pixels import read_pixels
from mammo.data.prepare import Prepared, Recipe, prepare
from mammo.data.release import Record

FACTORS: dict[str, tuple[Any, ...]] = {
    "polarity": ("MONOCHROME1", "MONOCHROME2"),
    "voi": ("LINEAR", "LINEAR_EXACT", "SIGMOID", "LUT", "none", "windows"),
    "depth": ((8, 0), (12, 0), (14, 0), (16, 0), (8, 1), (12, 1), (14, 1), (16, 1)),
    "side": ("L", "R"),
    "syntax": tuple(name for name in ENCODED if name != "jpeg-baseline"),
    "modality": ("none", "rescale", "table"),
}
SHAPE = (96, 72)


def pairwise(factors: dict[str, tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Combinations in which every pair of two factors' values comes up, chosen greedily."""
    names = list(factors)
    missing = {
        (a, x, b, y)
        for a, b in combinations(range(len(names)), 2)
        for x, y in product(range(len(factors[names[a]])), range(len(factors[names[b]])))
    }
    chosen: list[tuple[int, ...]] = []
    while missing:
        a, x, b, y = min(missing)
        row = {a: x, b: y}
        for other in range(len(names)):
            if other not in row:
                row[other] = max(
                    range(len(factors[names[other]])),
                    key=lambda value, o=other: sum(
                        _pair(o, value, p, row[p]) in missing for p in row
                    ),
                )
        values = tuple(row[place] for place in range(len(names)))
        chosen.append(values)
        missing -= {
            _pair(p, values[p], q, values[q]) for p, q in combinations(range(len(names)), 2)
        }
    return [tuple(factors[n][v] for n, v in zip(names, row, strict=True)) for row in chosen]


def _pair(a: int, x: int, b: int, y: int) -> tuple[int, int, int, int]:
    return (a, x, b, y) if a < b else (b, y, a, x)


COVER = pairwise(FACTORS)
# with those once more that have a modality transform, this time without; all would be 5,184 files
SAMPLE = [*COVER, *[(*row[:5], "none") for row in COVER if row[5] != "none"]][:110]


def table(entries: int, first: int, bits: int, *, signed: bool) -> Dataset:
    """A lookup table of `entries` for the values from `first` on, bent a little upwards."""
    item = Dataset()
    # the number of entries is unsigned in either type, and 0 for 65536 of them
    count = (entries + 32768) % 65536 - 32768 if signed else entries % 65536
    item.add_new("LUTDescriptor", "SS" if signed else "US", [count, first, bits])
    values = np.linspace(0, 1, entries) ** 0.9 * ((1 << bits) - 1)
    item.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    return item


def write_golden(path: Path, row: tuple[Any, ...]) -> Path:
    """A half breast with texture, displayed bright on black whatever the header's way there."""
    polarity, voi, (bits, signed), side, syntax, modality = row
    top = (1 << bits) - 1
    texture = np.random.default_rng(7).uniform(0.45, 0.75, SHAPE)
    shown = np.where(half_breast(SHAPE, wall="left" if side == "L" else "right") > 0, texture, 0)
    stored = np.rint(shown * top).astype(int)
    if polarity == "MONOCHROME1":
        stored = top - stored
    tags: dict[str, Any] = {"PhotometricInterpretation": polarity, "ImageLaterality": side}
    low = -(1 << (bits - 1)) if signed else 0
    high = low + top
    if modality == "rescale":
        slope = 1 if bits == 16 else 2  # a VOI table has 65536 entries at most
        tags |= {"RescaleSlope": slope, "RescaleIntercept": 10, "RescaleType": "US"}
        low, high = slope * low + 10, slope * high + 10
    elif modality == "table":
        tags["ModalityLUTSequence"] = [table(top + 1, low, 16, signed=bool(signed))]
        low, high = 0, 65535
    center, width = (low + high) / 2, 0.9 * (high - low)
    if voi == "LUT":
        tags["VOILUTSequence"] = [table(high - low + 1, low, 14, signed=bool(signed))]
        tags |= {"WindowCenter": 1, "WindowWidth": 2}  # the table goes before it
    elif voi == "windows":
        tags |= {"WindowCenter": [center, 1], "WindowWidth": [width, 2]}
    elif voi != "none":
        tags |= {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": voi}
    write_dicom(
        path, stored + (-(1 << (bits - 1)) if signed else 0), bits=bits, signed=signed, **tags
    )
    return path if syntax == "explicit" else transcode(path, syntax)


def expected_grey(data: Any) -> np.ndarray[Any, Any]:
    """pydicom's pipeline, divided by its output range and inverted as documented; float32."""
    grey = np.asarray(apply_modality_lut(data.pixel_array.astype(int), data), float)
    bits, signed = data.BitsStored, data.PixelRepresentation
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    if data.get("ModalityLUTSequence"):
        low, high = 0, (1 << data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    elif "RescaleSlope" in data:
        low, high = (
            end * float(data.RescaleSlope) + float(data.RescaleIntercept) for end in (low, high)
        )
    if data.get("VOILUTSequence"):
        grey = apply_voi_lut(grey.astype(int), data, index=0, prefer_lut=True)
        low, high = 0, (1 << data.VOILUTSequence[0].LUTDescriptor[2]) - 1
    elif "WindowWidth" in data:
        grey = apply_voi_lut(grey, data, index=0)
    scaled = np.clip((grey.astype(float) - low) / (high - low), 0, 1)
    return (1 - scaled if data.PhotometricInterpretation == "MONOCHROME1" else scaled).astype(
        np.float32
    )


def test_the_cover_holds_every_pair_in_about_a_hundred_files() -> None:
    assert 90 <= len(SAMPLE) <= 110
    names = list(FACTORS)
    for (a, one), (b, other) in combinations(enumerate(names), 2):
        seen = {(row[a], row[b]) for row in SAMPLE}
        assert seen == set(product(FACTORS[one], FACTORS[other]))


@pytest.mark.parametrize("row", SAMPLE, ids=lambda row: "-".join(map(str, row)).replace(" ", ""))
def test_grey_values_are_pydicoms_to_the_bit_and_every_file_looks_alike(
    tmp_path: Path, row: tuple[Any, ...]
) -> None:
    path = write_golden(tmp_path / "a.dcm", row)
    data = pydicom.dcmread(path)
    picture = read_pixels(path)
    np.testing.assert_array_equal(picture.values, expected_grey(data))
    assert picture.bits == row[2][0]
    done = prepare(Record((path,), "p", "i", "l"), Recipe((64, 64), crop="breast"))
    assert isinstance(done, Prepared)
    # whatever the polarity, window and side: the breast bright at the left, its curve to the right
    bright = done.image[0] > 0.25 * 65535
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    assert columns[0] == 0
    assert bright[rows[0] : rows[-1] + 1, 0].mean() > 0.95
    assert bright.sum() / (len(rows) * len(columns)) == pytest.approx(np.pi / 4, abs=0.05)
    assert not done.image[0, :2, 40:].any()
    assert done.wall == ("left" if row[3] == "L" else "right")
    assert "wall_differs" not in done.flags


@pytest.mark.parametrize(
    ("syntax", "bits"),
    [
        (name, bits)
        for name in ENCODED
        for bits in ([8] if name == "jpeg-baseline" else [8, 12, 16])
    ],
)
@pytest.mark.parametrize("signed", [0, 1])
def test_decoded_values_are_those_that_were_encoded(
    tmp_path: Path, syntax: str, bits: int, signed: int
) -> None:
    ramp = np.add.outer(np.arange(33), np.arange(46)) / 77
    noise = np.random.default_rng(3).integers(0, 1 << (bits - 3), (33, 46))
    noise *= syntax != "jpeg-baseline"  # which is lossy, the more the rougher
    pixels = (ramp * (1 << (bits - 1))).astype(int) + noise - signed * (1 << (bits - 1)) + 4
    path = transcode(write_dicom(tmp_path / "a.dcm", pixels, bits=bits, signed=signed), syntax)
    stored = read_pixels(path).stored
    assert np.abs(stored.astype(int) - pixels).max() <= (1 if syntax == "jpeg-baseline" else 0)


@pytest.mark.parametrize(
    "name",
    ["693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm", "JPEGLSNearLossless_08.dcm",
     "JPEGLSNearLossless_16.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm",
     "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
     "CT_small.dcm"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # pydicom's, on quirks of its own test files
def test_the_test_files_of_pydicom_are_decoded_as_pydicom_does(name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    np.testing.assert_array_equal(read_pixels(path).stored, pydicom.dcmread(path).pixel_array)


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_jpeg_of_12_bits_has_the_values_that_pydicoms_own_tests_state(name: str) -> None:
    stored = read_pixels(Path(str(get_testdata_file(name)))).stored
    assert (stored.shape, stored.dtype, int(stored.max())) == ((1024, 256), np.uint16, 264)
    assert (stored[420, 140], stored[230, 120]) == (244, 95)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_every_predictor_of_jpeg_lossless_is_decoded(
    tmp_path: Path, predictor: int, bits: int
) -> None:
    pixels = np.random.default_rng(predictor).integers(0, 1 << bits, (24, 31))
    path = write_dicom(tmp_path / "a.dcm", pixels, bits=bits)
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLossless
    stream = encode_lossless(pixels, bits=bits, predictor=predictor)
    data.PixelData = pydicom.encaps.encapsulate([stream + b"\0" * (len(stream) % 2)])
    data["PixelData"].VR = "OB"
    data.save_as(path)
    np.testing.assert_array_equal(read_pixels(path).stored, pixels)


# 16 x 16 pixels of 16 bits, value 16 * (16 * row + column), encoded once by OpenJPH, reversible
HTJ2K = base64.b85decode(
    "|4;u>04YEK0000G0000G00000000000000G0000G0000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0smY8"
    "6Cj9?kdTm&kdTm&kdTmwh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000egFaglfVEbN%jQ?bN~Rr0206e"
    "696Ishjai&@&ku-0KfnfKmZef5Xb=nbO0XdkpRO~0Kfnh5C8>WhG7`0aDsIJe)Pi+KmNc{f$X*bzyK>C02Yw$?(XjA"
    "z^A9D!gv7w{r&y@{r&y@j9`2AF@fy50RPz"
)


@pytest.mark.parametrize("syntax", ["HTJ2KLossless", "HTJ2KLosslessRPCL", "HTJ2K"])
def test_high_throughput_jpeg_2000_is_decoded(tmp_path: Path, syntax: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.zeros((16, 16), int), bits=16)
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    data.PixelData = pydicom.encaps.encapsulate([HTJ2K + b"\0" * (len(HTJ2K) % 2)])
    data["PixelData"].VR = "OB"
    data.save_as(path)
    np.testing.assert_array_equal(read_pixels(path).stored, 16 * np.arange(256).reshape(16, 16))
