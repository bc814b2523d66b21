"""The mean over folds comes with the corrected interval."""

import math

import pytest

from mammo.classifiers.cross_validation import summarise


def test_the_interval_is_that_of_nadeau_and_bengio():
    # sd 0.1 of five folds: half width t(0.975, 4) x 0.1 x sqrt(1/5 + 1/4), t = 2.776445
    values = [0.5 + 0.1 * each for each in (-math.sqrt(2), 0, 0, 0, math.sqrt(2))]
    said = summarise(values, folds=5)
    assert (said.mean, said.sd) == (pytest.approx(0.5), pytest.approx(0.1))
    half = 2.776445 * 0.1 * math.sqrt(0.45)
    assert said.low == pytest.approx(0.5 - half, abs=1e-6)
    assert said.high == pytest.approx(0.5 + half, abs=1e-6)


def test_more_seeds_narrow_the_interval_but_not_below_the_share_of_the_folds():
    spread = [0.7, 0.8, 0.9, 0.8, 0.8]
    once, often = summarise(spread, folds=5), summarise(spread * 1000, folds=5)
    floor = 1.96 * often.sd * math.sqrt(1 / 4)
    assert once.high - once.mean > often.high - often.mean
    assert often.high - often.mean == pytest.approx(floor, rel=0.01)


def test_an_interval_stays_between_0_and_1():
    said = summarise([1.0, 0.9, 1.0], folds=3)
    assert said.high == 1.0


def test_one_value_has_no_interval():
    said = summarise([0.8], folds=1)
    assert said.mean == 0.8 and math.isnan(said.low)


def test_seeds_of_one_fold_have_a_spread_but_no_interval():
    said = summarise([0.7, 0.9], folds=1)
    assert said.sd == pytest.approx(0.1 * math.sqrt(2))
    assert math.isnan(said.low) and math.isnan(said.high)
