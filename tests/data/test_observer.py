"""The ideal observer: its closed forms, and that nothing beats it."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from mammo.data.observer import (
    UNIT_DETECTABILITY,
    background,
    ideal_auc,
    ideal_detectability,
    known_answer_images,
    known_signal,
    matched_filter,
    power_spectrum,
)


@pytest.fixture(scope="module")
def known():
    return known_answer_images(4000, seed=7)


def test_in_white_noise_detectability_is_the_signals_norm_over_the_deviation():
    signal = np.random.default_rng(0).normal(size=(8, 6))
    assert ideal_detectability(signal, np.full((8, 6), 4.0)) == pytest.approx(
        np.linalg.norm(signal) / 2
    )


def test_in_coloured_noise_detectability_is_the_mahalanobis_length():
    spectrum, signal = power_spectrum(6), np.random.default_rng(1).normal(size=(6, 6))
    colour = np.array([background(unit.reshape(6, 6), spectrum).ravel() for unit in np.eye(36)])
    covariance = colour.T @ colour
    squared = signal.ravel() @ np.linalg.solve(covariance, signal.ravel())
    assert ideal_detectability(signal, spectrum) == pytest.approx(math.sqrt(squared))


@pytest.mark.parametrize("contrast", [0.0, 0.5, 1.0, 2.0])
def test_the_auc_follows_from_the_contrast(contrast):
    spectrum = power_spectrum(32)
    signal = known_signal(32, spectrum, contrast=contrast)
    expected = norm.cdf(contrast * UNIT_DETECTABILITY / math.sqrt(2))
    assert ideal_auc(signal, spectrum) == pytest.approx(expected)


def test_the_background_has_its_spectrum(known):
    absent = known.images[known.labels == 0]
    measured = (np.abs(np.fft.fft2(absent)) ** 2).mean(0) / absent[0].size
    # a bin is exponential over 2,000 images: the mean of 1,024 bins strays by 0.1 %
    assert (measured / known.spectrum).mean() == pytest.approx(1, abs=0.004)
    assert known.spectrum.mean() == pytest.approx(1)
    assert known.spectrum[0, 12] / known.spectrum[0, 6] == pytest.approx(2**-3, rel=0.05)


def test_the_matched_filter_attains_the_ideal_auc(known):
    scores = matched_filter(known.images, known.signal, known.spectrum)
    best = ideal_auc(known.signal, known.spectrum)
    assert abs(roc_auc_score(known.labels, scores) - best) < half_width(best, 2000)


@pytest.mark.parametrize("whitened", [False, True])
def test_no_trained_classifier_exceeds_the_ideal_auc(known, whitened):
    images = known.images
    if whitened:
        images = np.fft.ifft2(np.fft.fft2(images) / np.sqrt(known.spectrum)).real
    pixels = images.reshape(len(images), -1)
    model = LogisticRegression(C=1e-3, max_iter=500).fit(pixels[:2000], known.labels[:2000])
    auc = roc_auc_score(known.labels[2000:], model.decision_function(pixels[2000:]))
    best = ideal_auc(known.signal, known.spectrum)
    assert 0.6 < auc < best + half_width(best, 1000)


def test_an_image_depends_on_its_seed_and_place_alone():
    few, many = known_answer_images(3, seed=1, size=8), known_answer_images(5, seed=1, size=8)
    np.testing.assert_array_equal(few.images, many.images[:3])
    np.testing.assert_array_equal(few.labels, many.labels[:3])


def half_width(auc, each):
    """1.96 standard errors of an AUC with `each` positives and negatives (Hanley & McNeil 1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (each - 1) * (q1 - auc**2 + q2 - auc**2)
    return 1.96 * math.sqrt(variance) / each
