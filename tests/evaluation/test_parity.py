"""Parity of real and synthetic images: known statistics, real halves, planted defects."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mammo.data.phantom import draw_patient, render
from mammo.evaluation.fidelity import halve
from mammo.evaluation.parity import headline, mismatch, parity, weighted
from mammo.evaluation.summary import band_centers, some_rows, spectra, summarize
from mammo.seeds import derive

ROOT = Path(__file__).resolve().parents[2]
MISMATCHED = {  # defect -> the row that says so, on phantoms
    "inverted": "mean of the grey scale",
    "upper half": "mean of the grey scale",
    "lower half": "mean of the grey scale",
    "through 8 bits": "grey levels (log2)",
    "of 8 bits": "bits",
    "mirrored": "orientation (share brighter on the left)",
    "all one image": "distinct images",
}
WARNED = {  # defect -> quantities that say so
    "lighter by 0.1": {"mean", "background", "quantile_0.1", "quantile_1"},
    "blurred": {"spectrum_9", "spectrum_10", "spectrum_11", "spectrum_12"},
    "noisy": {"spectrum_9", "spectrum_10", "spectrum_11", "spectrum_12"},
    "framed": {"border_top", "border_bottom", "border_left", "border_right"},
}


@dataclass(frozen=True)
class Real:
    """Images (N, C, H, W) with a label and a patient each."""

    images: np.ndarray[Any, Any]
    labels: np.ndarray[Any, np.dtype[np.str_]]
    patients: np.ndarray[Any, np.dtype[np.str_]]

    def summary(
        self, rows: Any = slice(None), defect: Callable[[Any], Any] = lambda images: images
    ) -> dict[str, Any]:
        return summarize(defect(self.images[rows]), self.labels[rows], self.patients[rows])

    def halves(self, number: int) -> tuple[Any, Any]:
        return halve(self.patients, derive(0, "halves", number))


def from_files(files: list[tuple[list[Path], str, str]], side: int = 64) -> Real:
    """Each image of its channels' files, averaged down to `side` pixels, 8 bits."""
    images = []
    for channels, _, _ in files:
        planes = []
        for path in channels:
            with Image.open(path) as opened:
                small = opened.convert("L").resize((side, side), Image.Resampling.BOX)
                planes.append(np.asarray(small))
        images.append(np.stack(planes))
    labels, patients = zip(*((label, patient) for _, label, patient in files), strict=True)
    return Real(np.stack(images), np.array(labels), np.array(patients))


def table_of(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def mias(data: Path) -> Real:
    """80 patients, right breasts mirrored, so that all chest walls lie on one side."""
    rows = table_of(data / "mini-mias/labels_per_image.csv").iloc[:160]
    place = data / "mini-mias/png512"
    real = from_files([([place / r.file], r.label, r.patient_id) for r in rows.itertuples()])
    right = rows["laterality_info_txt"].to_numpy() == "R"
    real.images[right] = real.images[right][..., ::-1]
    return real


def busi(data: Path) -> Real:
    rows = table_of(data / "busi/labels.csv").iloc[::2]
    place = data / "busi/images256"
    return from_files(
        [([place / f"{r.image_id}.png"], r.label, r.image_id) for r in rows.itertuples()]
    )


def cesm(data: Path) -> Real:
    """Pairs of low-energy and subtracted images, right breasts mirrored."""
    rows = table_of(data / "cdd-cesm/labels.csv")
    rows = rows[rows["image_id"].str.contains("_DM_")].iloc[::2]
    place, files, right = data / "cdd-cesm", [], []
    for r in rows.itertuples():
        pair = [place / r.file, place / r.file.replace("_DM_", "_CM_")]
        if all(path.exists() for path in pair):
            files.append((pair, r.view, r.patient_id))
            right.append(r.laterality == "R")
    real = from_files(files)
    real.images[right] = real.images[right][..., ::-1]
    return real


REAL = {"mias": mias, "busi": busi, "cesm": cesm}


@pytest.fixture(scope="module", params=sorted(REAL))
def real(request: pytest.FixtureRequest, shared: Path) -> Real:
    return REAL[request.param](shared / "data")


@pytest.fixture(scope="module")
def phantoms() -> Real:
    """Left breasts of 24 patients in two views, 64 pixels high and narrower, 16 bits."""
    images, labels, patients = [], [], []
    for number in range(24):
        patient = draw_patient(number, seed=3)
        for view in ("CC", "MLO"):
            picture, _ = render(patient, "L", view, image_size=64)
            images.append(np.rint(picture * 65535).astype(np.uint16)[None])
            labels.append(view)
            patients.append(str(number))
    return Real(np.stack(images), np.array(labels), np.array(patients))


@pytest.fixture
def defects(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "studies")
    import real_against_real

    return real_against_real


def test_white_noise_has_its_variance_in_every_band_but_the_lowest() -> None:
    """Noise of SD 0.1 has 20 log10(0.1) = -20 dB; of the lowest the image's mean was taken."""
    noise = np.random.default_rng(0).normal(0.5, 0.1, (64, 32, 48))
    np.testing.assert_allclose(spectra(noise).mean(axis=0)[1:], -20, atol=0.5)


def test_a_wave_has_its_power_in_the_band_of_its_frequency() -> None:
    for band, frequency in enumerate(band_centers(96, 96)):
        wave = 0.5 + 0.25 * np.sin(2 * np.pi * frequency * np.arange(96))
        power = spectra(np.broadcast_to(wave, (1, 96, 96)))
        assert int(power[0].argmax()) == band


def test_the_quantities_of_a_picture_that_one_can_count_out() -> None:
    """Left half 1, right half 0, and a line of 51 / 255 at the bottom."""
    image = np.zeros((1, 1, 10, 10), np.uint8)
    image[..., :5] = 255
    image[..., 9, :] = 51
    found = summarize(image, ["a"], ["p"])
    assert found["levels"] == [3]
    assert (found["lowest"], found["highest"]) == (0, 1)
    mean = found["classes"]["a"]["mean"]
    assert mean["mean"] == pytest.approx(0.47)
    assert mean["background"] == pytest.approx(0.45)
    assert mean["quantile_50"] == pytest.approx(0.2)
    assert [mean[f"border_{side}"] for side in ("top", "bottom", "left", "right")] == pytest.approx(
        [0.5, 0.2, 0.92, 0.02]
    )
    assert (mean["side"], mean["left_side"]) == (pytest.approx(0.9), 1)
    histogram = np.array(found["classes"]["a"]["histogram"][0])
    assert histogram[[0, 12, 63]] == pytest.approx([0.45, 0.1, 0.45])  # 51 / 255 * 64 = 12.8
    layout = np.array(found["classes"]["a"]["layout"][0])
    assert layout[0] == pytest.approx([1, 1, 1, 1, 0, 0, 0, 0], abs=0.01)


def test_every_class_is_in_a_summary_and_rows_are_spread_evenly() -> None:
    labels = ["rare", *["often"] * 2999]
    rows = some_rows(labels, (1, 64, 64))
    assert rows[0] == 0 and len(rows) == 501
    assert set(np.diff(rows[1:])) <= {5, 6, 7}
    assert len(some_rows(labels, (1, 1024, 1024))) == 33  # 2**25 pixels, and the rare class


def test_asking_for_one_class_alone_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    dark = rng.integers(0, 20000, (40, 1, 16, 16)).astype(np.uint16)
    bright = rng.integers(40000, 60000, (40, 1, 16, 16)).astype(np.uint16)
    labels, names = ["dark"] * 40 + ["bright"] * 40, [str(number) for number in range(80)]
    real = summarize(np.concatenate([dark, bright]), labels, names)
    more = rng.integers(40000, 60000, (20, 1, 16, 16)).astype(np.uint16)
    one_class = summarize(more, ["bright"] * 20, names[:20])
    assert set(parity(real, one_class)["verdict"]) == {"ok"}
    told_none = summarize(more, ["bright"] * 20, names[:20]) | {
        "classes": {"another": one_class["classes"]["bright"]}
    }
    shares = weighted(real, told_none)
    assert shares["mean"]["mean"] == pytest.approx((10000 + 50000) / 2 / 65535, rel=0.01)
    assert "mean" in set(parity(real, told_none).query("verdict == 'warn'")["quantity"])


def test_disjoint_halves_of_real_patients_agree(real: Real) -> None:
    """studies/real_against_real.py counts more of them."""
    warned = checked = 0
    for number in range(4):
        one, other = real.halves(number)
        table = parity(real.summary(one), real.summary(other))
        assert mismatch(table) == ""
        warned += int((table["verdict"] == "warn").sum())
        checked += int(table["tolerance"].notna().sum())
    assert warned <= 0.01 * checked


@pytest.mark.parametrize("defect", sorted(MISMATCHED))
def test_a_wrong_encoding_of_phantoms_is_a_mismatch(
    phantoms: Real, defects: ModuleType, defect: str
) -> None:
    one, other = phantoms.halves(0)
    table = parity(phantoms.summary(one), phantoms.summary(other, defects.DEFECTS[defect]))
    assert MISMATCHED[defect] in set(table.query("verdict == 'mismatch'")["quantity"])
    assert mismatch(table).count("\n") == 0 and "; " in mismatch(table)  # with its remedy


@pytest.mark.parametrize("defect", sorted(WARNED))
def test_a_difference_in_quality_warns_and_is_no_mismatch(
    phantoms: Real, defects: ModuleType, defect: str
) -> None:
    one, other = phantoms.halves(0)
    table = parity(phantoms.summary(one), phantoms.summary(other, defects.DEFECTS[defect]))
    assert set(table.query("verdict == 'warn'")["quantity"]) >= WARNED[defect]
    assert mismatch(table) == ""


def test_wrong_encodings_of_real_images_are_mismatches(real: Real, defects: ModuleType) -> None:
    one, other = real.halves(0)
    wrong = ["inverted", "upper half", "lower half", "of 8 bits", "all one image"]
    sided = real.summary(one)["classes"].values()
    left = [value for each in sided for name, value in each["mean"].items() if "left_side" in name]
    wrong += ["mirrored"] if min(left) > 0.95 else []
    wrong += ["channels swapped"] if real.images.shape[1] > 1 else []
    summary = real.summary(one)
    for name in wrong:
        assert mismatch(parity(summary, real.summary(other, defects.DEFECTS[name]))), name


def test_blur_and_noise_of_real_images_are_told_by_their_spectrum(
    real: Real, defects: ModuleType
) -> None:
    """A blur of 1 px passes exp(-2 pi^2 f^2): at 0.4 cycles a pixel -27 dB of power."""
    one, other = real.halves(0)
    summary = real.summary(one)
    for name, direction in (("blurred", -1), ("noisy", 1)):
        table = parity(summary, real.summary(other, defects.DEFECTS[name]))
        high = table[table["quantity"].str.endswith("spectrum_11")]
        assert (high["verdict"] == "warn").all() and (direction * high["difference"] > 3).all()
        assert mismatch(table) == ""


def test_a_blur_is_as_strong_as_the_formula_says(phantoms: Real, defects: ModuleType) -> None:
    """Convolution with a normal density of SD s multiplies power by exp(-(2 pi f s)^2)."""
    image = np.random.default_rng(1).integers(0, 65536, (50, 1, 64, 64)).astype(np.uint16)
    names = [str(number) for number in range(50)]
    real = summarize(image, names, names)
    blurred = summarize(defects.blurred(image, sigma=0.5), names, names)
    gap = parity(real, blurred).set_index("quantity")["difference"]
    frequency = band_centers(64, 64)[6]
    expected = 10 * np.log10(np.exp(-((2 * np.pi * frequency * 0.5) ** 2)))
    assert gap["spectrum_7"] == pytest.approx(expected, abs=0.3)


def test_images_of_another_size_or_number_of_channels_are_named() -> None:
    one = summarize(np.zeros((2, 1, 8, 8), np.uint8), ["a", "a"], ["1", "2"])
    other = summarize(np.zeros((2, 2, 8, 12), np.uint8), ["a", "a"], ["1", "2"])
    table = parity(one, other)
    assert list(table.query("verdict == 'mismatch'")["quantity"]) == ["channels", "width"]
    assert mismatch(table).startswith("the channels differ")
    assert headline(table) == {"parity/mismatches": 2, "parity/warnings": 0}


@pytest.mark.parametrize("value", [np.nan, 1.5, -0.25])
def test_values_outside_the_range_are_a_mismatch(value: float) -> None:
    images = np.random.default_rng(0).random((4, 1, 8, 8))
    real = summarize(images, list("aaaa"), list("1234"))
    images[0, 0, 0, 0] = value
    assert "outside [0, 1]" in mismatch(parity(real, summarize(images, list("aaaa"), list("1234"))))


def test_of_masks_the_area_alone_counts() -> None:
    """Lesions anywhere, 4 of 64 pixels each; then of 25."""
    rng = np.random.default_rng(0)

    def masks(side: int) -> dict[str, Any]:
        out = np.zeros((60, 1, 8, 8), np.uint8)
        for image in out[:, 0]:
            y, x = rng.integers(0, 8 - side, 2)
            image[y : y + side, x : x + side] = 255
        names = [str(number) for number in range(60)]
        return summarize(out, ["a"] * 60, names, kind="mask")

    assert set(parity(masks(2), masks(2))["verdict"]) == {"ok"}
    table = parity(masks(2), masks(5))
    assert list(table.query("verdict != 'ok'")["quantity"]) == ["mean"]
    assert table.set_index("quantity").loc["mean", "real"] == pytest.approx(4 / 64)


def test_spectra_are_drawn_from_low_to_high_frequency() -> None:
    """Of a summary out of a file too, whose quantities come by name: spectrum_10 before _2."""
    from mammo.evaluation.parity_figure import parity_figure

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (4, 1, 32, 32)).astype(np.uint8)
    written = summarize(noise, ["a"] * 4, list("abcd"))
    for band in range(1, 13):
        written["classes"]["a"]["mean"][f"spectrum_{band}"] = -float(band)
    read = json.loads(json.dumps(written, sort_keys=True))
    real, drawn = parity_figure(read, written).axes[0].lines
    for line in (real, drawn):
        np.testing.assert_array_equal(line.get_ydata(), -np.arange(1.0, 13))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from(["uint8", "uint16"]),
    channels=st.integers(1, 3),
    height=st.integers(8, 24),
    width=st.integers(8, 24),
    count=st.integers(1, 12),
)
def test_a_set_agrees_with_itself_in_any_order(
    seed: int, dtype: str, channels: int, height: int, width: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    top = int(rng.integers(1, np.iinfo(dtype).max + 1))
    images = rng.integers(0, top, (count, channels, height, width)).astype(dtype)
    labels = rng.choice(["a", "b"], count)
    names = np.array([str(number) for number in range(count)])
    order = rng.permutation(count)
    one = summarize(images, labels, names)
    other = summarize(images[order], labels[order], names[order])
    table = parity(one, other)
    assert set(table["verdict"]) == {"ok"}
    assert table["difference"].abs().max() == pytest.approx(0, abs=2e-5)
