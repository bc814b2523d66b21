"""Calibration against hand values, scikit-learn and torchmetrics."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammo.errors import ConfigError
from mammo.evaluation.calibration import (
    brier,
    brier_parts,
    ece,
    fit_temperature,
    nll,
    reliability,
    scaled,
    slope_and_intercept,
)
from mammo.evaluation.ranking import auc


def drawn(seed, rows=4000, slope=1.0, intercept=0.0):
    """Probabilities (N, 2); the outcome follows their log odds by slope and intercept."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=rows) * 2
    outcome = rng.random(rows) < 1 / (1 + np.exp(-(slope * odds + intercept)))
    high = 1 / (1 + np.exp(-odds))
    return outcome, np.stack([1 - high, high], axis=1)


def test_brier_of_a_hand_example():
    assert brier([True, False], [0.8, 0.4]) == pytest.approx((0.04 + 0.16) / 2)


def test_the_parts_of_brier_of_a_hand_example():
    # two bins: predicted 0.2 and 0.8, observed 0.5 and 1, base rate 0.75
    parts = brier_parts([False, True, True, True], [0.1, 0.3, 0.7, 0.9], bins=2)
    assert parts["reliability"] == pytest.approx((2 * 0.3**2 + 2 * 0.2**2) / 4)
    assert parts["resolution"] == pytest.approx(0.25**2)
    assert parts["uncertainty"] == pytest.approx(0.75 * 0.25)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from(["equal_mass", "equal_width"]))
def test_the_parts_of_brier_add_up_to_that_of_the_binned_forecasts(seed, rows, binning):
    rng = np.random.default_rng(seed)
    outcome, score = rng.random(rows) < 0.5, rng.integers(0, 21, rows) / 20
    bins = int(rng.integers(1, 9))
    table = reliability(outcome, score, bins=bins, binning=binning)
    seen, said, count = table["observed"], table["predicted"], table["rows"]
    # within a bin the same forecast meets `seen` of ones and the rest of zeros
    binned = (count * (seen * (said - 1) ** 2 + (1 - seen) * said**2)).sum() / count.sum()
    parts = brier_parts(outcome, score, bins=bins, binning=binning)
    total = parts["reliability"] - parts["resolution"] + parts["uncertainty"]
    assert total == pytest.approx(binned, abs=1e-12)


def test_the_log_likelihood_equals_that_of_scikit_learn():
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(4), 50)
    labels = rng.integers(0, 4, 50)
    assert nll(labels, scores) == pytest.approx(log_loss(labels, scores, labels=range(4)))
    assert nll([0], [[0.0, 1.0]]) == pytest.approx(-math.log(1e-7))  # sure and wrong


def test_ece_of_two_bins_by_hand():
    # lower half predicts 0.2, sees 0.5; upper half predicts 0.75, sees 1
    found = ece([False, True, True, True], [0.1, 0.3, 0.7, 0.8], bins=2)
    assert found == pytest.approx((0.3 + 0.25) / 2)


def test_ece_of_equal_widths_by_hand():
    # [0, 0.5): 0.1 and 0.3, sees 0.5; [0.5, 1]: 0.5, 0.9 and 1, sees 2/3
    found = ece(
        [False, True, False, True, True], [0.1, 0.3, 0.5, 0.9, 1.0], bins=2, binning="equal_width"
    )
    assert found == pytest.approx((2 * 0.3 + 3 * (0.8 - 2 / 3)) / 5)
    with pytest.raises(ConfigError, match="binning 'even' is not one of equal_mass, equal_width"):
        ece([True, False], [0.1, 0.2], binning="even")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 0.999)), min_size=2, max_size=60))
def test_ece_of_equal_widths_equals_that_of_torchmetrics(rows):
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    outcome, probability = map(list, zip(*rows, strict=True))
    expected = binary_calibration_error(
        torch.tensor(probability, dtype=torch.float64), torch.tensor(outcome).long(), n_bins=15
    )
    found = ece(outcome, probability, bins=15, binning="equal_width")
    assert found == pytest.approx(float(expected), abs=1e-9)


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


def test_the_slope_equals_that_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    outcome, scores = drawn(1, rows=300, slope=0.5, intercept=0.3)
    odds = np.log(scores[:, 1] / scores[:, 0])[:, None]
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds, outcome)
    slope, intercept = slope_and_intercept(outcome, scores[:, 1])
    assert slope == pytest.approx(fitted.coef_[0, 0], abs=1e-4)
    # at slope 1 the fitted probabilities sum to the outcomes
    at_one = 1 / (1 + np.exp(-(odds[:, 0] + intercept)))
    assert at_one.sum() == pytest.approx(outcome.sum(), abs=1e-6)


def test_slope_and_intercept_find_what_was_put_in():
    outcome, scores = drawn(2, rows=40_000, slope=0.5, intercept=0.0)
    assert slope_and_intercept(outcome, scores[:, 1])[0] == pytest.approx(0.5, abs=0.03)
    outcome, scores = drawn(3, rows=40_000, slope=1.0, intercept=-0.7)
    assert slope_and_intercept(outcome, scores[:, 1])[1] == pytest.approx(-0.7, abs=0.05)


def test_separated_outcomes_have_no_slope():
    slope, intercept = slope_and_intercept([False, False, True], [0.1, 0.2, 0.9])
    assert math.isnan(slope) and math.isfinite(intercept)
    assert all(map(math.isnan, slope_and_intercept([True, True], [0.1, 0.2])))


def test_extreme_probabilities_have_a_finite_intercept():
    # of sure and wrong rows: two of three positive where none was expected
    _, intercept = slope_and_intercept([True, True, False], [0.0, 1e-9, 0.0])
    assert 1 / (1 + math.exp(-(math.log(1e-7) + intercept))) == pytest.approx(2 / 3, abs=1e-3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature):
    outcome, scores = drawn(4, rows=40_000)
    found = fit_temperature(outcome, scaled(scores, 1 / temperature))
    assert found == pytest.approx(temperature, rel=0.05)


def test_the_temperature_is_the_best_one_on_the_rows():
    rng = np.random.default_rng(5)
    scores = rng.dirichlet(np.ones(3) * 0.3, 200)
    labels = np.where(rng.random(200) < 0.5, scores.argmax(axis=1), rng.integers(0, 3, 200))
    best = fit_temperature(labels, scores)
    at_best = nll(labels, scaled(scores, best))
    assert at_best < nll(labels, scores)
    assert all(at_best <= nll(labels, scaled(scores, best * each)) for each in (0.95, 1.05))


def test_scaling_divides_the_logits():
    logits = np.array([[2.0, 0.0, -1.0], [0.5, 0.1, 3.0]])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    cool = np.exp(logits / 2.5) / np.exp(logits / 2.5).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scaled(softmax, 2.5), cool, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 1000)), min_size=4, max_size=40),
    st.floats(0.2, 50),
)
def test_scaling_leaves_the_auc_of_two_classes(rows, temperature):
    positive, thousandths = map(np.array, zip(*rows, strict=True))
    high = thousandths / 1000
    after = scaled(np.stack([1 - high, high], axis=1), temperature)[:, 1]
    before = auc(positive, high)
    assert auc(positive, after) == pytest.approx(before, nan_ok=True, abs=0)


def test_separated_rows_say_nothing_of_the_temperature():
    assert fit_temperature([0, 1], [[0.6, 0.4], [0.3, 0.7]]) == 1.0


def test_rows_without_any_order_make_the_scores_equal():
    wrong = fit_temperature([1, 0], [[0.6, 0.4], [0.3, 0.7]])
    assert wrong == pytest.approx(100, rel=1e-3)
