"""Calibration against hand values."""

import numpy as np
import pytest

from mammo.evaluation.calibration import brier, ece, reliability


def test_brier_of_a_hand_example():
    assert brier([True, False], [0.8, 0.4]) == pytest.approx((0.04 + 0.16) / 2)


def test_ece_of_two_bins_by_hand():
    # lower half predicts 0.2, sees 0.5; upper half predicts 0.75, sees 1
    found = ece([False, True, True, True], [0.1, 0.3, 0.7, 0.8], bins=2)
    assert found == pytest.approx((0.3 + 0.25) / 2)


def test_a_calibrated_coin_has_no_error():
    assert ece([True, False] * 10, [0.5] * 20) == 0


def test_bins_have_equal_mass():
    table = reliability(np.arange(45) % 2 == 0, np.linspace(0, 1, 45))
    assert table["rows"].tolist() == [3] * 15


def test_equal_probabilities_share_a_bin_whatever_the_order():
    probability = np.repeat([0.2, 0.9], [20, 10])
    outcome = np.arange(30) % 3 == 0
    shuffled = np.random.default_rng(0).permutation(30)
    assert reliability(outcome, probability)["rows"].tolist() == [20, 10]
    first = ece(outcome, probability)
    assert first == ece(outcome[shuffled], probability[shuffled])
    assert first == pytest.approx((20 * abs(0.35 - 0.2) + 10 * abs(0.3 - 0.9)) / 30)
