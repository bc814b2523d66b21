"""The phantom's pictures: what follows from the seed, and that the lesion alone tells the label."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from mammo.data.phantom import SIDES, VIEWS, draw_patient, power_law_noise, render

LABELS = ("benign", "malignant")


@pytest.mark.parametrize("kind", ["mass", "calcification"])
@pytest.mark.parametrize("view", VIEWS)
def test_at_contrast_0_benign_and_malignant_are_the_same_to_the_last_bit(kind, view):
    for index in range(3):
        patient = draw_patient(index, seed=4)
        patient = replace(patient, lesion=replace(patient.lesion, kind=kind))
        benign, malignant, normal = (
            render(replace(patient, label=label), patient.affected, view, image_size=64, contrast=0)
            for label in (*LABELS, "normal")
        )
        assert np.array_equal(benign[0], malignant[0])
        assert np.array_equal(benign[0], normal[0])


def test_the_lesion_is_the_only_difference_at_full_contrast():
    patient = replace(draw_patient(1, seed=0), label="malignant")
    with_lesion, mask = render(patient, patient.affected, "CC", image_size=128)
    without, _ = render(replace(patient, label="normal"), patient.affected, "CC", image_size=128)
    added = with_lesion - without
    rows, columns = np.nonzero(mask)
    y, x = np.indices(mask.shape)
    reach = np.hypot(y - rows.mean(), x - columns.mean()) / 128
    assert added[mask > 0].mean() > 0.1
    assert np.abs(added[reach > 4 * patient.lesion.radius]).max() < 1e-3


def test_nothing_else_that_is_drawn_depends_on_the_label():
    from scipy.stats import chi2_contingency

    patients = [draw_patient(index, seed=11) for index in range(1200)]
    label = np.array([p.label for p in patients])
    others = {
        "density": [p.density for p in patients],
        "vendor": [p.vendor for p in patients],
        "inverted": [p.inverted for p in patients],
        "affected": [p.affected for p in patients],
        "kind": [p.lesion.kind for p in patients],
        "age": [p.age // 10 for p in patients],
        "radius": [p.lesion.radius > 0.0675 for p in patients],
        "depth": [p.breasts["L"].depth > 0.5 for p in patients],
        "file order": [p.index // 240 for p in patients],
    }
    for name, values in others.items():
        values = np.array(values)
        table = [[np.sum((label == a) & (values == b)) for b in np.unique(values)] for a in LABELS]
        assert chi2_contingency(table).pvalue > 0.01, name


def test_every_five_patients_hold_one_normal_two_benign_and_two_malignant():
    labels = [draw_patient(index, seed=3).label for index in range(20)]
    for start in range(0, 20, 5):
        assert sorted(labels[start : start + 5]) == ["benign"] * 2 + ["malignant"] * 2 + ["normal"]
    assert len({tuple(labels[start : start + 5]) for start in range(0, 20, 5)}) > 1


def test_only_the_affected_breast_is_not_normal():
    patient = replace(draw_patient(0, seed=0), label="malignant", affected="R")
    assert patient.label_of("R") == "malignant" and patient.label_of("L") == "normal"
    assert render(patient, "L", "CC", image_size=32)[1] is None


def test_the_same_seed_gives_the_same_picture_and_another_seed_another():
    first, again, other = (draw_patient(2, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert np.array_equal(
        render(first, "L", "MLO", image_size=64)[0], render(again, "L", "MLO", image_size=64)[0]
    )
    assert not np.array_equal(
        render(first, "L", "MLO", image_size=64)[0], render(other, "L", "MLO", image_size=64)[0]
    )


def test_a_lesion_lies_equally_far_behind_the_nipple_in_both_views():
    patient = draw_patient(0, seed=0)
    breast = patient.breasts["L"]
    places = [
        patient.lesion.place(view, breast.depth, breast.nipple[view], breast.half_height)
        for view in VIEWS
    ]
    assert places[0][1] == places[1][1]
    assert places[0][0] != places[1][0]


def test_air_is_black_and_the_chest_wall_is_left_for_l_and_right_for_r():
    patient = draw_patient(0, seed=0)
    for side in SIDES:
        picture, _ = render(patient, side, "CC", image_size=64)
        wall, front = (0, -1) if side == "L" else (-1, 0)
        assert (picture[:, wall] > 0.05).mean() > 0.5
        assert picture[:, front].max() == 0
        assert picture.shape == (64, 48) and picture.min() >= 0 and picture.max() <= 1


def test_masks_lie_inside_the_breast_and_mark_the_lesion():
    for index in range(12):
        patient = draw_patient(index, seed=2)
        for view in VIEWS:
            picture, mask = render(patient, patient.affected, view, image_size=64)
            if patient.label == "normal":
                assert mask is None
            else:
                assert set(np.unique(mask)) == {0, 1}
                assert (picture[mask > 0] > 0.05).all()


def test_only_mlo_shows_the_pectoral_muscle():
    bright = {view: [] for view in VIEWS}
    for index in range(6):
        patient = replace(draw_patient(index, seed=8), label="normal")
        for view in VIEWS:
            picture, _ = render(patient, "L", view, image_size=64)
            bright[view].append(picture[2:8, 1:6].mean())
    assert max(bright["CC"]) < 0.05 < 0.3 < min(bright["MLO"])


def test_a_larger_dense_share_is_a_brighter_breast():
    patient = replace(draw_patient(0, seed=0), label="normal")
    means = []
    for share in (0.08, 0.26, 0.5, 0.78):  # BI-RADS A to D
        breasts = {"L": replace(patient.breasts["L"], dense_share=share)}
        picture, _ = render(replace(patient, breasts=breasts), "L", "CC", image_size=128)
        means.append(picture[picture > 0.05].mean())
    assert np.all(np.diff(means) > 0.02)


@pytest.mark.parametrize("exponent", [2.0, 3.0])
def test_power_law_noise_has_its_exponent_and_unit_variance(exponent):
    rng = np.random.default_rng(0)
    fields = [power_law_noise((128, 96), exponent=exponent, rng=rng) for _ in range(40)]
    spectrum = np.mean([np.abs(np.fft.fft2(field)) ** 2 for field in fields], axis=0)
    f = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(96)) * 128
    assert slope(spectrum, f, range(4, 45)) == pytest.approx(-exponent, abs=0.1)
    assert np.mean([field.var() for field in fields]) == pytest.approx(1, abs=0.15)


def test_the_parenchyma_has_a_power_law_spectrum_with_exponent_3():
    side = 80  # a square inside the breast, windowed against its edges
    window = np.hanning(side)[:, None] * np.hanning(side)
    spectra = []
    for index in range(16):
        patient = replace(draw_patient(index, seed=0), label="normal")
        breast = patient.breasts["L"]
        picture, _ = render(patient, "L", "CC", image_size=256)
        top = int(breast.nipple["CC"] * 256) - side // 2
        left = max(int(breast.depth * 128) - side // 2, 4)
        square = picture[top : top + side, left : left + side]
        spectrum = np.abs(np.fft.fft2((square - square.mean()) * window)) ** 2
        spectra.append(spectrum / spectrum.sum())
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)) * side
    assert slope(np.mean(spectra, axis=0), f, range(3, 26)) == pytest.approx(-3, abs=0.3)


def test_the_auc_is_a_half_at_contrast_0_and_rises_with_contrast():
    aucs = [blob_classifier_auc(contrast) for contrast in (0.0, 0.5, 1.0)]
    assert abs(aucs[0] - 0.5) < 1.96 * 0.0528  # standard error of U for 60 against 60
    assert aucs[0] < aucs[1] < aucs[2]
    assert aucs[2] > 0.75


def slope(spectrum, f, rings):
    """Slope of the radially averaged `spectrum` (H, W) over whole frequencies, in log-log."""
    power = [spectrum[(f >= ring - 0.5) & (f < ring + 0.5)].mean() for ring in rings]
    return np.polyfit(np.log(list(rings)), np.log(power), 1)[0]


def blob_classifier_auc(contrast):
    """AUC on 120 patients of a logistic regression on spots, trained on 120 others.

    One fixed split: the folds of a cross-validation depend on each other, and so does their AUC.
    """
    from scipy.ndimage import gaussian_filter
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = [], []
    for index in range(300):
        patient = draw_patient(index, seed=1)
        if patient.label == "normal":
            continue
        picture, _ = render(patient, patient.affected, "CC", image_size=64, contrast=contrast)
        scales = [gaussian_filter(picture, sigma) for sigma in (0.7, 1.5, 3, 6)]
        spots = [(a - b).max() for a, b in pairwise(scales)]
        features.append([*spots, picture.max(), picture[picture > 0.05].mean()])
        labels.append(patient.label == "malignant")
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features[:120], labels[:120])
    return roc_auc_score(labels[120:], model.decision_function(features[120:]))
