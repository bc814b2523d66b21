"""NIfTI files: layouts, number types, scales and slices."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from mammo.data.pixels import bits_of, read_mask, read_pixels, to_units
from mammo.data.prepare import Prepared, Recipe, Refused, prepare
from mammo.data.release import Record
from mammo.data.volumes import read_volume, volume_shape
from mammo.errors import DataError

RAMP = np.arange(12 * 20, dtype=np.uint8).reshape(12, 20)


def save(path: Path, values: NDArray[Any], *, slope: float = 1, intercept: float = 0) -> Path:
    image = nib.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(slope, intercept)
    image.to_filename(path)
    return path


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("shape", [(12, 20), (12, 20, 1), (12, 20, 1, 1)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32])
def test_rows_and_columns_are_those_of_the_array(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], kind: Any
) -> None:
    top = {np.uint8: 255, np.uint16: 65535, np.int16: 32767, np.float32: 1}[kind]
    values = (RAMP / 255 * top).astype(kind)
    path = save(tmp_path / f"a.{suffix}", values.reshape(shape))
    picture = read_pixels(path)
    assert picture.shape == (12, 20)
    np.testing.assert_allclose(picture.values, values / top, atol=1e-6)
    assert picture.bits == bits_of(path) == (8 if kind is np.uint8 else 16)
    assert (picture.low, picture.high) == (0, top)


def test_slope_and_intercept_come_before_the_scale(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", RAMP, slope=2, intercept=-100)
    picture = read_pixels(path)
    np.testing.assert_allclose(picture.values, RAMP / 255, atol=1e-6)
    assert (picture.low, picture.high) == (-100, 410)
    fixed = read_pixels(path, intensity="fixed", fixed_range=(0, 200)).values
    np.testing.assert_allclose(fixed, np.clip((RAMP * 2.0 - 100) / 200, 0, 1), atol=1e-6)
    thin = read_pixels(save(tmp_path / "b.nii", RAMP, slope=1 / 255))
    np.testing.assert_allclose(thin.values, RAMP / 255, atol=1e-6)


def test_a_slice_is_taken_by_its_number_or_by_policy(tmp_path: Path) -> None:
    volume = np.stack([RAMP // 4, RAMP // 2, RAMP, RAMP // 8], axis=2)
    path = save(tmp_path / "a.nii.gz", volume)
    assert volume_shape(path) == (12, 20, 4)
    np.testing.assert_array_equal(read_volume(path), volume)
    for number in range(4):
        got = read_pixels(path, slice_index=number).stored
        np.testing.assert_array_equal(got, volume[:, :, number])
    np.testing.assert_array_equal(read_pixels(path, frames="central").stored, RAMP)
    np.testing.assert_array_equal(read_pixels(path, frames="maximum").stored, RAMP)
    with pytest.raises(DataError, match=r"4 frames .* give --frames central"):
        read_pixels(path)
    with pytest.raises(DataError, match="slice 4 is asked of a file with 4 frames"):
        read_pixels(path, slice_index=4)


def test_channels_and_mask_may_be_slices_of_one_file(tmp_path: Path) -> None:
    lesion = (RAMP > 200).astype(np.uint8)
    path = save(tmp_path / "a.nii.gz", np.stack([RAMP, 255 - RAMP, lesion], axis=2))
    record = Record((path, path), "p", "i", "l", masks=(path,), planes=(0, 1, 2))
    done = prepare(record, Recipe((12, 20), crop="none", dtype="uint8"))
    assert isinstance(done, Prepared)
    np.testing.assert_array_equal(done.image, [RAMP, 255 - RAMP])
    assert done.mask is not None
    np.testing.assert_array_equal(done.mask[0], lesion * 255)


def test_a_label_map_is_a_mask_whatever_its_numbers(tmp_path: Path) -> None:
    labels = (RAMP % 3).astype(np.uint8)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "a.nii", labels)), labels > 0)
    inside = (RAMP > 9).astype(np.float32)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "b.nii", inside)), RAMP > 9)


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("lesion", [1, 3, 255])
def test_a_mask_marks_the_same_in_every_type(tmp_path: Path, kind: str, lesion: int) -> None:
    """Programs that segment save int16 or floats as readily as bytes."""
    inside = RAMP > 200
    path = save(tmp_path / "a.nii.gz", (inside * lesion).astype(kind))
    np.testing.assert_array_equal(read_mask(path), inside)
    done = prepare(
        Record((path,), "p", "i", "l", masks=(path,)),
        Recipe((12, 20), crop="none", intensity="fixed", fixed_range=(0, lesion), dtype="uint8"),
    )
    assert isinstance(done, Prepared)
    assert done.mask is not None
    np.testing.assert_array_equal(done.mask[0], inside * 255)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((4, 4), np.nan, np.float32), "NaN or infinite"),
        (np.full((4, 4), np.inf, np.float32), "NaN or infinite"),
        (np.linspace(0, 400, 16, dtype=np.float32).reshape(4, 4), "--intensity percentile or"),
        (np.full((4, 4), -3, np.int16), "--intensity percentile or fixed"),
        (np.zeros((4, 4), np.complex64), "neither integers nor floats"),
        (np.zeros((4, 4, 2, 2), np.uint8), r"\(H, W\) or \(H, W, slices\)"),
    ],
)
def test_values_without_a_known_range_are_refused(
    tmp_path: Path, values: NDArray[Any], reason: str
) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read_pixels(save(tmp_path / "secret.nii", values))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_percentiles_and_fixed_ranges_serve_floats_of_any_unit(tmp_path: Path) -> None:
    values = np.linspace(-700, 500, 1000, dtype=np.float32).reshape(25, 40)
    path = save(tmp_path / "a.nii.gz", values)
    fixed = read_pixels(path, intensity="fixed", fixed_range=(-700, 500))
    np.testing.assert_allclose(to_units(fixed.values, fixed.low, fixed.high), values, atol=1e-3)
    done = prepare(
        Record((path,), "p", "i", "l"), Recipe((25, 40), crop="none", intensity="percentile")
    )
    assert isinstance(done, Prepared)
    back = to_units(done.image[0] / 65535, done.grey_low, done.grey_high)
    low, high = np.percentile(values, (0.5, 99.5))
    np.testing.assert_allclose(back, np.clip(values, low, high), atol=0.02)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("length", [0, 10, 200, 360, -200])
def test_a_truncated_volume_is_refused(tmp_path: Path, suffix: str, length: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8)
    path = save(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[:length])
    done = prepare(Record((path,), "p", "i", "l"), Recipe((16, 16), crop="none"))
    assert isinstance(done, Refused)
    assert "NIfTI file is" in done.reason
